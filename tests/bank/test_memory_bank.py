"""The bank for somebody else's trainer: one process or two, saved and loaded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from spml_dist import comm
from spml_dist.bank.memory_bank import MemoryBank
from spml_dist.bank.rows import ANNOTATED, from_bitset
from spml_dist.bank.search.filters import Kind
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.method.spml_loss import SPMLLoss
from spml_dist.records import BankRows, Neighbours
from spml_dist.tensor_records import take
from tests.bank.builders import CLASSES, DIM, brute_force, queries_of, rows_of
from tests.method.test_step import example
from tests.spawn import spawn

KEYS = [f"image {number}" for number in range(8)]
SEGMENTS = [3, 1, 4, 2, 5, 2, 6, 3]
QUESTION = rows_of(["image 1", "new", "other"], [3, 2, 4], seed=9, coarse=True)
KINDS = get_args(Kind)
# Coarse vectors: of norm 1 to the last bit, whatever factor a trainer gives them.


def bank_of(**options) -> MemoryBank:
    settings = {
        "capacity": 700,
        "partitions": 7,
        "neighbours": 2,
        "max_candidates": 9,
        "sampled": 8,
    } | options
    return MemoryBank(DIM, CLASSES, **settings)


def arguments(rows: BankRows, keys: list[str]) -> dict:
    """The rows as a trainer has them."""
    return {
        "prototypes": 3 * rows.vector,
        "labels": torch.where(rows.source == ANNOTATED, rows.label.long(), 254),
        "keys": [keys[position] for position in rows.position.tolist()],
        "tags": from_bitset(rows.tags, CLASSES),
        "tags_known": rows.tags_known,
    }


def filled(**options) -> MemoryBank:
    """Two steps of images, dealt to the ranks in turn; the second brings some again."""
    bank = bank_of(**options)
    for step, (keys, segments) in enumerate(((KEYS, SEGMENTS), (KEYS[:3], [2, 2, 2]))):
        rows = rows_of(keys, segments, step, seed=step, coarse=True)
        own = take(rows, rows.position % comm.world() == comm.rank())
        bank.add(**arguments(own, keys), step=step)
    return bank


def remembered() -> BankRows:
    """The rows that a filled bank has, with the labels that were given."""
    old = rows_of(KEYS, SEGMENTS, 0, seed=0, coarse=True)
    new = rows_of(KEYS[:3], [2, 2, 2], 1, seed=1, coarse=True)
    kept = take(old, ~torch.isin(old.image, new.image))
    rows = BankRows(
        *(torch.cat([getattr(kept, name), getattr(new, name)]) for name in BankRows.__dataclass_fields__)
    )
    return rows


def answers(bank: MemoryBank) -> dict[str, Tensor]:
    """What a rank gets: its part of the searches, and the candidates."""
    own = take(QUESTION, QUESTION.position % comm.world() == comm.rank())
    own_arguments = arguments(own, ["image 1", "new", "other"])
    about = {name: own_arguments[name] for name in ("keys", "labels", "tags")}
    result = {"position": own.position}
    for kind in KINDS:
        found = bank.search(own.vector, 3, kind, **about)
        result |= {f"{kind}.{name}": value for name, value in vars(found).items()}
    candidates = bank.candidates(bank.segments(**own_arguments), 2)
    result |= {f"candidates.{name}": value for name, value in vars(candidates.rows).items()}
    return result | {"candidates.log_weight": candidates.log_weight}


class TestOneProcess:
    def test_every_image_has_the_segments_that_came_last(self):
        assert len(filled()) == len(remembered()) == sum(SEGMENTS[3:]) + 6
        assert len(bank_of()) == 0

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("exact_rows", [10_000, 5])
    def test_a_search_is_a_slow_one_over_all_rows(self, kind, exact_rows):
        """With an inverted file too, of which so few rows are all compared."""
        rows, queries = remembered(), queries_of(QUESTION)
        tags = from_bitset(QUESTION.tags, CLASSES)
        found = filled(exact_rows=exact_rows).search(
            QUESTION.vector, 3, kind, keys=["image 1"] * 3 + ["new"] * 6, labels=queries.label, tags=tags
        )
        queries = replace(queries, tags_known=torch.ones_like(queries.tags_known))
        assert named(found) == brute_force(kind, queries, rows, 3)

    def test_without_keys_every_row_may_answer(self):
        found = filled().search(remembered().vector[:4], 1)
        assert found.image[:, 0].tolist() == remembered().image[:4].tolist()
        assert found.similarity[:, 0].tolist() == pytest.approx([1.0] * 4, abs=1e-5)

    def test_candidates_are_no_images_of_the_step(self):
        bank = filled(candidates="exact")
        segments = bank.segments(**arguments(QUESTION, ["image 1", "new", "other"]))
        candidates = bank.candidates(segments, 2).rows
        assert image_hash(["image 1"]).item() not in candidates.image
        assert len(candidates) == len(bank) - 2 > 0

    def test_what_no_bank_may_hold_is_refused_and_the_bank_stays(self):
        bank, broken = filled(), arguments(rows_of(["broken"], [2]), ["broken"])
        broken["prototypes"][1] = torch.nan
        with pytest.raises(RunError, match="image broken: segment 1 has an embedding that is not finite"):
            bank.add(**broken, step=2)
        assert len(bank) == len(remembered())

    def test_settings_that_the_configuration_refuses_are_refused(self):
        with pytest.raises(ValueError, match="min_recall"):
            bank_of(min_recall=2.0)

    def test_the_segments_of_an_image_need_not_stand_together(self):
        bank, rows = bank_of(candidates="exact"), rows_of(["a", "b"], [2, 2])
        mixed = take(rows, torch.tensor([0, 2, 1, 3]))
        bank.add(**arguments(mixed, ["a", "b"]), step=0)
        assert bank.bank.store.slots_of(image_hash(["a"]).item()).size == 2
        found = bank.search(rows.vector, 1)
        assert found.image[:, 0].tolist() == rows.image.tolist()
        assert found.segment[:, 0].tolist() == [0, 1, 0, 1]

    def test_without_tags_and_labels_there_are_still_candidates(self):
        bank = bank_of()
        nothing = torch.full((4,), -1)
        bank.add(torch.randn(4, DIM), nothing, ["a", "a", "b", "b"], step=0)
        candidates = bank.candidates(bank.segments(torch.randn(2, DIM), nothing[:2], ["c", "c"]), 1)
        assert len(candidates.rows) == 4 and (candidates.rows.semantic == 254).all()


class TestWithTheLoss:
    def test_it_takes_what_the_loss_gives(self):
        world = example(steps=0)
        batch, criterion = world.batch, SPMLLoss()
        bank = MemoryBank(world.raw.shape[1], batch.tags.shape[1], own_images=True)
        for step in range(2):
            segments = criterion.segments(
                world.raw, batch.semantic, batch.regions, batch.tags, batch.tags_known, batch.keys
            )
            candidates = bank.candidates(segments.candidates, step)
            output = criterion.contrast(segments, candidates)
            bank.publish([output.segments], step)
            assert len(candidates.rows) == step * len(bank)
        assert len(bank) == len(output.segments.segments)

    def test_images_without_keys_are_refused(self):
        world = example(steps=0)
        output = SPMLLoss()(world.raw, world.batch.semantic)
        with pytest.raises(ValueError, match="give keys="):
            MemoryBank(world.raw.shape[1], 254).publish([output.segments], 0)


class TestSavedAndLoaded:
    @pytest.mark.parametrize("exact_rows", [10_000, 5])
    def test_it_is_what_it_was(self, exact_rows, tmp_path):
        bank = filled(exact_rows=exact_rows)
        answers(bank)
        bank.save(tmp_path / "bank")
        options = {"neighbours": 2, "max_candidates": 9, "sampled": 8, "exact_rows": exact_rows}
        again = MemoryBank.load(tmp_path / "bank", **options)
        assert len(again) == len(bank)
        assert_same(answers(again), answers(bank))

    def test_the_snapshot_says_how_large_it_is(self, tmp_path):
        bank = MemoryBank(DIM, ["sea", "land"], capacity=30, partitions=3, storage="float16")
        bank.save(tmp_path / "bank")
        again = MemoryBank.load(tmp_path / "bank").bank
        assert again.names == ("sea", "land") and again.dim == DIM
        assert (again.settings.capacity, again.settings.storage) == (30, "float16")


def on_a_rank(rank: int, folder: Path) -> tuple[dict, dict]:
    """What a rank gets before and after its bank was saved and loaded; and by one that one rank saved."""
    bank = filled()
    bank.save(folder / "of two")
    options = {"neighbours": 2, "max_candidates": 9, "sampled": 8}
    return answers(bank), *(answers(MemoryBank.load(folder / of, **options)) for of in ("of two", "of one"))


def test_two_processes_are_told_what_one_is(tmp_path):
    alone = filled()
    alone.save(tmp_path / "of one")
    wanted = answers(alone)
    for outcome in zip(*spawn(on_a_rank, 2, tmp_path), strict=True):
        for name, value in wanted.items():
            if name.startswith("candidates"):
                assert all(torch.equal(one[name], value) for one in outcome), name
            else:
                for one in outcome:
                    mine = QUESTION.position % 2 == one["position"][0] % 2
                    assert torch.equal(one[name], value[mine]), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prototypes": torch.ones(3, DIM + 1)}, rf"vectors are \[3, {DIM + 1}\], and this bank's are"),
        ({"labels": torch.ones(2)}, "labels are 2, and there are 3 vectors"),
        ({"keys": ["a", "b"]}, "keys are 2, and there are 3 vectors"),
        ({"tags_known": torch.ones(4)}, "tags_known are 4, and there are 3 vectors"),
        ({"tags": torch.ones(3, 1)}, rf"tags are \[3, 1\], and this bank has {CLASSES} classes"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(wrong, said):
    bank = filled()
    before = answers(bank)
    given = {"prototypes": torch.ones(3, DIM), "labels": torch.zeros(3).long(), "keys": ["a", "b", "c"]}
    given |= {"tags": torch.ones(3, CLASSES)} | wrong
    for method in (bank.segments, partial(bank.add, step=2)):
        with pytest.raises(ValueError, match=said):
            method(**given)
    assert_same(answers(bank), before)


def test_a_filter_and_a_bank_that_there_are_not_are_named():
    with pytest.raises(ValueError, match="filter is 'labeled': one of any, "):
        filled().search(torch.ones(1, DIM), 1, "labeled")
    with pytest.raises(ValueError, match="recent is spml_dist"):
        MemoryBank(DIM, CLASSES, candidates="recent")


def test_segments_stay_on_the_device_that_they_come_from():
    with FakeTensorMode(allow_non_fake_inputs=True):
        bank = MemoryBank(DIM, CLASSES, device="cuda")
        vectors = torch.empty(2, DIM, device="cuda")
        segments = bank.segments(vectors, torch.zeros(2, device="cuda").long(), ["a", "b"])
        tagged = bank.segments(
            vectors, torch.zeros(2, device="cuda").long(), ["a", "b"], torch.ones(2, CLASSES)
        )
    for each in (*vars(segments).values(), *vars(tagged).values()):
        assert each.device.type == "cuda"


def named(found: Neighbours) -> list[list[tuple[int, int]]]:
    """(image, segment) of the rows found for each query."""
    parts = zip(found.image.tolist(), found.segment.tolist(), strict=True)
    return [[row for row in zip(*query, strict=True) if row[1] >= 0] for query in parts]


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
