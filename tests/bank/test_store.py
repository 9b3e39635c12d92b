"""The rows of one worker against a dictionary that keeps the same rules the slow way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.counts import count
from spml_dist.bank.partitions import partition_of
from spml_dist.bank.rows import digest, pack
from spml_dist.bank.store import Store
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, contents, queries_of, rows_of, shuffled

KEYS = [f"image {i}" for i in range(9)]


def store(shards: int = 1, capacity: int = 10, owned: range | None = None) -> Store:
    return Store(range(shards) if owned is None else owned, shards, capacity, DIM, CLASSES, "float32")


@dataclass
class Model:
    """What a store should hold: of every partition its images as (step, position, image) → rows."""

    shards: int
    capacity: int
    images: dict[int, dict[tuple[int, int, int], BankRows]] = field(default_factory=dict)

    def put(self, rows: BankRows) -> None:
        came = sorted({*zip(rows.step.tolist(), rows.position.tolist(), rows.image.tolist(), strict=True)})
        for written in came:
            step, position, image = written
            part = take(rows, (rows.step == step) & (rows.position == position) & (rows.image == image))
            shard = self.images.setdefault(image % self.shards, {})
            before = next((each for each in shard if each[2] == image), None)
            if before is not None and before > written:
                continue
            shard.pop(before, None)
            while shard and self._held(shard) + len(part) > self.capacity and min(shard) < written:
                del shard[min(shard)]
            if self._held(shard) + len(part) <= self.capacity:
                shard[written] = take(part, torch.argsort(part.segment))

    def expire(self, before: int) -> None:
        for shard in self.images.values():
            for written in [each for each in shard if each[0] < before]:
                del shard[written]

    def rows(self) -> list[BankRows]:
        """In the order of reading: by partition, oldest image first, by segment."""
        return [shard[each] for _, shard in sorted(self.images.items()) for each in sorted(shard)]

    @staticmethod
    def _held(shard: dict) -> int:
        return sum(map(len, shard.values()))


def assert_like(ours: Store, model: Model) -> None:
    expected, live = model.rows(), ours.live()
    held = take(ours.rows, live)
    assert len(ours) == len(live) == sum(map(len, expected)) == int(ours.alive.sum())
    assert len(live.unique()) == len(live) and ours.alive[live].all()
    assert ours.used <= len(ours.alive) and (not len(live) or int(live.max()) < ours.used)
    if expected:
        everything = concatenate(expected)
        assert torch.equal(pack(held), pack(everything))
        assert (digest(held) == digest(everything)).all()
    else:
        assert (digest(held) == 0).all()
    queries = queries_of(rows_of(KEYS[:4], [1, 2, 1, 1], seed=5))
    counted = count(held, torch.ones_like(held.tags_known), queries, CLASSES)
    for name, numbers in vars(ours.counts.of(queries)).items():
        assert numbers.tolist() == getattr(counted, name).tolist(), name
    for image in image_hash(KEYS).tolist():
        slots = ours.slots_of(image)
        own = [part for part in expected if part.image[0] == image]
        assert len(slots) == sum(map(len, own))
        if own:
            assert torch.equal(pack(take(ours.rows, torch.from_numpy(slots))), pack(own[0]))


@st.composite
def histories(draw) -> list:
    """Puts of images, repeated puts of earlier ones alone or beside new ones, and expiries; steps go on, and
    sometimes back."""
    images = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 5)), max_size=5)
    events = st.one_of(
        st.tuples(st.just("put"), images, st.integers(-4, 2), st.integers(0, 2**31), st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 30), st.integers(0, 2**31)),
        st.tuples(st.just("expire"), st.integers(0, 6)),
    )
    return draw(st.lists(events, max_size=25))


@settings(deadline=None, max_examples=80)
@given(history=histories(), shards=st.integers(1, 4), capacity=st.integers(5, 14))
def test_any_history_leaves_what_a_dictionary_would_hold(history, shards, capacity):
    ours, model, sent, step = store(shards, capacity), Model(shards, capacity), [], 4
    for event, *details in history:
        if event == "expire":
            before = step - details[0]
            ours.expire(before)
            model.expire(before)
        elif event == "put" or sent:
            if event == "put":
                images, ahead, seed, beside = details
                step = max(step, step + ahead)
                sent.append(
                    rows_of(
                        [key for key, _ in images],
                        [count for _, count in images],
                        step=step + min(ahead, 0),
                        seed=seed,
                    )
                )
                rows = sent[-1]
                earlier = next(filter(len, sent), rows) if beside else rows
                if len(rows) and earlier.step[0] != rows.step[0]:
                    rows = concatenate([rows, earlier])
            else:
                rows, seed = sent[details[0] % len(sent)], details[1]
            slots = ours.put(shuffled(rows, seed))
            model.put(rows)
            assert ours.alive[slots].all() and len(slots.unique()) == len(slots)
            assert contents(take(ours.rows, slots)) <= contents(rows)
        assert_like(ours, model)


def test_empty_means_empty():
    ours = store(3)
    assert len(ours) == len(ours.live()) == ours.used == 0 and not ours.alive.any()
    assert len(ours.put(rows_of([], []))) == 0
    ours.expire(100)
    assert len(ours) == 0 and len(ours.slots_of(5)) == 0


def test_after_many_rounds_the_newest_images_are_there_whole():
    """Every partition is filled a hundred times over."""
    ours, model = store(3, 12), Model(3, 12)
    for step in range(600):
        rows = rows_of([f"visit {step}", f"twin {step}"], [1 + step % 5, 3], step=step, seed=step)
        ours.put(rows)
        model.put(rows)
    assert_like(ours, model)
    assert ours.used <= 36 and len(ours) > 18


def test_the_slots_of_a_put_are_those_of_the_rows_that_it_left():
    ours = store(1, 8)
    assert len(ours.put(rows_of(["a", "b"], [3, 4], step=1))) == 7
    rows = rows_of(["c", "d", "c"], [5, 2, 4], step=2)  # evicts a and b, then the first c is replaced
    slots = ours.put(rows)
    assert contents(take(ours.rows, slots)) == contents(take(rows, rows.position > 0))
    assert len(ours.put(rows_of(["d"], [2], step=1))) == 0  # late


def test_an_image_that_comes_late_takes_no_room_from_newer_ones():
    ours = store(1, 8)
    ours.put(rows_of(["new"], [6], step=5))
    assert len(ours.put(rows_of(["late"], [3], step=4))) == 0
    assert len(ours.put(rows_of(["late"], [2], step=4, seed=1))) == 2
    assert take(ours.rows, ours.live()).step.tolist() == [4, 4, 5, 5, 5, 5, 5, 5]
    ours.put(rows_of(["newer"], [1], step=6))
    assert take(ours.rows, ours.live()).step.tolist() == [5] * 6 + [6]


def test_of_one_step_the_first_positions_go_first():
    ours = store(1, 8)
    ours.put(rows_of(["a", "b", "c"], [3, 3, 3], step=1))
    assert take(ours.rows, ours.live()).image.unique().tolist() == sorted(image_hash(["b", "c"]).tolist())


def test_of_several_steps_in_one_put_the_last_counts():
    ours = store(1, 8)
    early, late = rows_of(["x", "a"], [1, 2], step=1), rows_of(["a"], [3], step=2)  # a at position 1, then 0
    ours.put(concatenate([late, early]))
    assert contents(take(ours.rows, ours.live())) == contents(late) | contents(take(early, slice(0, 1)))


def test_expiry_forgets_what_was_written_before_a_step():
    ours = store(2, 30)
    for step in range(5):
        ours.put(rows_of([f"{step}", f"also {step}"], [2, 3], step=step))
    ours.expire(3)
    assert take(ours.rows, ours.live()).step.unique().tolist() == [3, 4] and len(ours) == 10


def test_a_store_of_some_shards_holds_their_images_alone():
    rows = rows_of(KEYS, [2] * len(KEYS))
    shard = partition_of(rows.image, 4)
    parts = [store(4, 20, owned) for owned in (range(0, 1), range(1, 4))]
    for part in parts:
        part.put(take(rows, torch.isin(shard, torch.tensor(part.owned))))
        assert contents(take(part.rows, part.live(part.owned[0]))) == contents(
            take(rows, shard == part.owned[0])
        )
    assert all(len(parts[0].slots_of(image)) == 0 for image in rows.image[shard > 0].tolist())
    together = sum(digest(take(part.rows, part.live())) for part in parts)
    assert (together == digest(rows)).all() and len(parts[0]) + len(parts[1]) == len(rows)


def test_how_far_an_image_moved_is_noted_when_it_is_replaced_and_only_then():
    ours, rows = store(1, 30), rows_of(["a", "b"], [3, 2])
    ours.put(rows)
    assert ours.drift == []
    back = replace(rows, vector=-rows.vector, step=rows.step + 1)
    ours.put(take(back, back.position == 0))
    assert ours.drift == pytest.approx([-1.0] * 3, abs=0.002)
    ours.put(take(rows, rows.position == 0))  # late: nothing is replaced
    assert len(ours.drift) == 3


class TestRefused:
    """What cannot be stored is refused before anything of its put is."""

    def refused(self, rows: BankRows, match: str) -> None:
        ours, before = store(2, 10), rows_of(["a", "b"], [2, 2])
        ours.put(before)
        with pytest.raises(RunError, match=match):
            ours.put(rows)
        model = Model(2, 10)
        model.put(before)
        assert_like(ours, model)

    def test_two_keys_of_one_hash(self):
        other = rows_of(["x", "a"], [1, 2], step=1)
        self.refused(replace(other, check=other.check ^ 1), "same 64-bit hash")

    def test_two_keys_of_one_hash_in_one_put(self):
        other = rows_of(["x", "c", "c"], [1, 2, 2], step=1)
        self.refused(replace(other, check=other.check ^ (other.position == 2)), "same 64-bit hash")

    def test_two_keys_of_one_hash_of_which_one_comes_late(self):
        other = rows_of(["a"], [2], step=-1)
        self.refused(replace(other, check=other.check ^ 1), "same 64-bit hash")

    def test_an_image_larger_than_a_partition(self):
        self.refused(rows_of(["x", "a"], [1, 11], step=1), "11 segments.*holds 10 rows.*capacity to 22")
