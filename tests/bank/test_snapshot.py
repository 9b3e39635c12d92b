"""Saved and loaded, a bank is what it was, on any number of ranks; what is damaged is named."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spml_dist import comm
from spml_dist.bank import snapshot, snapshot_copy
from spml_dist.bank.rows import by_identity, digest, empty, pack, written
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.bank.snapshot_manifest import MANIFEST, read_manifest, sum_of
from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.records import BankCandidates, BankRows, Candidates
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, rows_of
from tests.conftest import SMALL
from tests.spawn import spawn

PLAN = LookupPlan(("shares_tag", "shares_none", "same_class", "other_class"), votes=True, ignore_classes=())
SHARDS = 7
"""partitions: no multiple of any number of ranks"""


def bank_of(*published: BankRows, dim: int = DIM, classes: int = CLASSES, **changes) -> ShardedBank:
    """A bank that was given these rows one after the other, every image by the rank of its position."""
    changes = {
        "partitions": SHARDS,
        "capacity": 100 * SHARDS,
        "storage": "float32",
        "neighbours": 2,
    } | changes
    options = load(SMALL).bank.model_copy(update=changes)
    bank = ShardedBank(options, dim, classes, PLAN, 3, torch.device("cpu"))
    rank, world = (torch.distributed.get_rank(), 2) if torch.distributed.is_initialized() else (0, 1)
    for rows in published:
        bank.add(take(rows, rows.position % world == rank), [])
    return bank


def history(steps: int = 4, **changes) -> list[BankRows]:
    """Images that come, come again, and have no segments."""
    return [
        rows_of([f"{name}{step % 3}" for name in "abcdefg"], [3, 1, 4, 0, 5, 9, 2], step, step, **changes)
        for step in range(steps)
    ]


def contents(bank: ShardedBank) -> BankRows:
    bank.settle()
    return by_identity(take(bank.store.rows, bank.store.live()))


def same(one: BankRows, other: BankRows) -> bool:
    return torch.equal(pack(one), pack(other))


def pack_memory(memory: BankCandidates) -> torch.Tensor:
    """Every number of an answer."""
    parts = [*vars(memory.rows).values(), *vars(memory.labelled).values(), memory.log_weight]
    return torch.cat([part.flatten().double() for part in parts])


def question(seed: int) -> Candidates:
    """Segments of a step: known and new images."""
    asked = rows_of(["a0", "x", "y"], [2, 3, 3], seed=seed)
    semantic = torch.where(asked.label >= 0, asked.label.long(), 254)
    tags = torch.rand(len(asked), CLASSES, generator=torch.Generator().manual_seed(seed)) < 0.4
    known = torch.ones(len(asked), dtype=torch.bool)
    return Candidates(asked.vector, semantic, tags, known, asked.image, semantic)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "bank"
    snapshot.save(bank_of(*history()), folder)
    return folder


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def shard(folder: Path) -> Path:
    return sorted(folder.glob("shard_*"))[2]


class TestOneRank:
    @pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
    def test_save_and_restore_are_the_identity(self, storage, tmp_path):
        bank = bank_of(*history(storage=storage), storage=storage)
        snapshot.save(bank, tmp_path / "bank")
        again = bank_of(storage=storage)
        snapshot.restore(again, tmp_path / "bank")
        assert len(again) == len(bank) > 50
        for number in range(SHARDS):
            rows, back = (take(b.store.rows, b.store.live(number)) for b in (bank, again))
            assert same(rows, back)

    def test_what_is_restored_goes_on_as_if_nothing_had_happened(self, tmp_path):
        """A full bank: the oldest images go, in the same order."""
        first, second = history(9)[:5], history(9)[5:]
        bank, again = bank_of(*first, capacity=12 * SHARDS), bank_of(capacity=12 * SHARDS)
        snapshot.save(bank, tmp_path / "bank")
        snapshot.restore(again, tmp_path / "bank")
        for rows in second:
            for each in (bank, again):
                each.add(rows, [])
            assert same(contents(bank), contents(again))
        assert len(bank) < len(contents(bank_of(*history(9))))

    def test_what_was_published_last_is_in_it(self, tmp_path):
        bank = bank_of(*history(1))
        snapshot.save(bank, tmp_path / "bank")
        assert read_manifest(tmp_path / "bank").rows == 24

    def test_an_empty_bank_comes_back_empty(self, tmp_path):
        snapshot.save(bank_of(), tmp_path / "bank")
        assert [path.name for path in (tmp_path / "bank").iterdir()] == [MANIFEST]
        manifest = read_manifest(tmp_path / "bank")
        assert (manifest.rows, manifest.step, manifest.digest) == (0, None, "0" * 32)
        bank = bank_of()
        snapshot.restore(bank, tmp_path / "bank")
        assert len(bank) == 0 and bank.cache is None
        assert list(snapshot.read_shards(tmp_path / "bank")) == []

    @pytest.mark.parametrize("shards", [1, 3, 14, 64])
    def test_another_number_of_partitions_holds_the_same_rows(self, shards, saved):
        bank = bank_of(partitions=shards, capacity=100 * shards)
        snapshot.restore(bank, saved)
        assert same(contents(bank), contents(bank_of(*history())))
        steps = [bank.store.rows.step[bank.store.live(number)] for number in range(shards)]
        assert all((step.diff() >= 0).all() for step in steps)

    def test_a_reader_without_ranks_sees_all_rows(self, saved):
        rows = by_identity(concatenate(list(snapshot.read_shards(saved))))
        assert same(rows, contents(bank_of(*history())))

    def test_the_manifest_says_what_there_is(self, saved):
        rows, manifest = contents(bank_of(*history())), json.loads((saved / MANIFEST).read_text())
        files = manifest.pop("files")
        assert manifest == {
            "format": 1,
            "shards": SHARDS,
            "capacity": 100 * SHARDS,
            "dim": DIM,
            "classes": list(map(str, range(CLASSES))),
            "storage": "float32",
            "step": 3,
            "world": 1,
            "rows": len(rows),
            "images": len(rows.image.unique()),
            "digest": written(digest(rows)),
            "indexes": {},
        }
        assert {name: file["bytes"] for name, file in files.items()} == {
            path.name: path.stat().st_size for path in saved.glob("*.safetensors")
        }

    @given(st.lists(st.integers(0, 40), max_size=5))
    def test_the_digest_of_parts_is_that_of_the_whole(self, sizes):
        parts = [rows_of([f"{part}"], [size], seed=part) for part, size in enumerate(sizes)]
        whole = concatenate([empty(0, DIM, CLASSES, "float32"), *parts])
        assert sum_of(written(digest(part)) for part in parts) == written(digest(whole))


class TestIndex:
    """With an inverted file, for more than ten rows."""

    @pytest.fixture
    def grown(self) -> ShardedBank:
        bank = bank_of(*history(3), exact_rows=10)
        bank.candidates(question(0), 3)
        bank.cache.widen("labelled")
        bank.add(history(4)[3], [])  # so few that the inverted file is not told of them
        return bank

    def test_it_knows_what_it_knew_and_no_more(self, grown, tmp_path):
        snapshot.save(grown, tmp_path / "bank")
        again = bank_of(exact_rows=10)
        snapshot.restore(again, tmp_path / "bank")
        one, other = (b.cache.current(b.store.used)[b.store.live().numpy()] for b in (grown, again))
        assert 0 < one.sum() < len(one) and (one == other).all()
        assert again.cache.state() == grown.cache.state()
        assert (again.cache.inverted.centroids == grown.cache.inverted.centroids).all()

    @pytest.mark.parametrize("exact_rows", [10, 10**6])
    def test_the_next_answers_are_the_same_to_the_bit(self, exact_rows, tmp_path):
        bank, again = bank_of(*history(), exact_rows=exact_rows), bank_of(exact_rows=exact_rows)
        bank.candidates(question(0), 3)
        bank.report(4)
        snapshot.save(bank, tmp_path / "bank")
        snapshot.restore(again, tmp_path / "bank")
        for step in (4, 5, 50):
            one, other = (each.candidates(question(step), step, measure=True) for each in (bank, again))
            assert one.log_weight.equal(other.log_weight)
            for part in ("rows", "labelled", "counts"):
                values, twins = (vars(getattr(each, part)).values() for each in (one, other))
                assert all(map(torch.equal, values, twins))
            assert bank.report(step) == again.report(step)
            for each in (bank, again):
                each.add(rows_of(["b0", f"new{step}"], [3, 4], step), [])

    def test_interrupted_twice_it_answers_as_if_it_never_had_been(self, tmp_path, monkeypatch):
        """With lists that are really probed, rows that the inverted file gets late, and evictions."""
        monkeypatch.setattr("spml_dist.bank.search.lookup.FEW", 0)
        monkeypatch.setattr("spml_dist.bank.search.index_cache.NEW_ROWS", 8)
        outcome = history(12)

        def fresh() -> ShardedBank:
            return bank_of(exact_rows=10, capacity=12 * SHARDS, min_recall=0.5)

        def go_on(bank: ShardedBank, steps: range) -> list:
            answers = []
            for step in steps:
                memory = bank.candidates(question(step), step, measure=True)
                answers += [pack_memory(memory), bank.report(step)]
                bank.add(outcome[step], [])
            return answers

        straight, once = fresh(), fresh()
        expected = go_on(straight, range(12))
        seen = go_on(once, range(4))
        for turn, steps in enumerate((range(4, 9), range(9, 12))):
            snapshot.save(once, tmp_path / str(turn))
            once = fresh()
            snapshot.restore(once, tmp_path / str(turn))
            assert len(once.cache.inverted) > 0
            seen += go_on(once, steps)
        assert len(seen) == len(expected)
        for one, other in zip(seen, expected, strict=True):
            assert one.equal(other) if isinstance(one, torch.Tensor) else one == other

    def test_the_same_bank_is_the_same_bytes(self, grown, tmp_path):
        folders = [tmp_path / name for name in ("one", "other")]
        again = bank_of(exact_rows=10)
        snapshot.save(grown, folders[0])
        snapshot.restore(again, folders[0])
        snapshot.save(again, folders[1])
        one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
        assert one == other and len(one) > 3

    @pytest.mark.parametrize("damage", [lambda path: flip(path, -1), Path.unlink])
    def test_a_damaged_one_is_named(self, grown, tmp_path, damage):
        snapshot.save(grown, tmp_path / "bank")
        snapshot.verify_indexes(tmp_path / "bank")
        damage(tmp_path / "bank" / "index_00000_of_00001.safetensors")
        for read in (
            lambda: snapshot.restore(bank_of(exact_rows=10), tmp_path / "bank"),
            lambda: snapshot.verify_indexes(tmp_path / "bank"),
        ):
            with pytest.raises(RunError, match=r"index_00000_of_00001.safetensors cannot be used"):
                read()

    def test_a_bank_without_room_for_the_rows_is_refused_before_the_file_is_read(self, grown, tmp_path):
        snapshot.save(grown, tmp_path / "bank")
        with pytest.raises(RunError, match=r"bank.capacity has no room"):
            snapshot.restore(bank_of(exact_rows=10, capacity=63), tmp_path / "bank")

    def test_equal_rows_are_the_same_neighbours_after_a_restore(self, tmp_path, monkeypatch):
        """Blank parts of images are alike to the bit, and more of them than are looked up."""
        monkeypatch.setattr("spml_dist.bank.search.lookup.FEW", 0)
        monkeypatch.setattr("spml_dist.bank.search.index_cache.NEW_ROWS", 8)
        blank = torch.nn.functional.normalize(torch.ones(DIM), dim=0)

        def step(number: int) -> BankRows:
            rows = rows_of([f"{number % 3} {image}" for image in range(20)], [8] * 20, number, number)
            rows.vector[rows.segment % 2 == 0] = blank
            return rows

        def ask(number: int) -> Candidates:
            asked = question(number)
            asked.prototype[:4] = blank
            return asked

        bank, again = (bank_of(exact_rows=10, candidates="nearest", min_recall=0.01) for _ in range(2))
        for number in range(7):
            bank.add(step(number), [])
            bank.candidates(ask(number), number + 1)
        snapshot.save(bank, tmp_path / "bank")
        snapshot.restore(again, tmp_path / "bank")
        for number in range(7, 12):
            one, other = (vars(each.candidates(ask(number), number + 1).rows) for each in (bank, again))
            assert all(map(torch.equal, one.values(), other.values()))
            for each in (bank, again):
                each.add(step(number), [])

    def test_made_anew_from_the_rows_it_would_be_another(self, tmp_path, monkeypatch):
        """Why it is saved: its centroids were found on rows that have been replaced since, so one that a
        restore trains proposes other rows than the run that was not interrupted."""
        monkeypatch.setattr("spml_dist.bank.search.lookup.FEW", 0)
        monkeypatch.setattr("spml_dist.bank.search.index_cache.PROBES", 1)

        def step(number: int) -> BankRows:
            return rows_of([f"image {image}" for image in range(40)], [8] * 40, number, number)

        options = {"exact_rows": 10, "candidates": "nearest", "min_recall": 0.01, "max_candidates": 99}
        banks = {name: bank_of(**options) for name in ("straight", "restored", "made anew")}
        straight = banks["straight"]
        for number in range(2):
            straight.add(step(number), [])
            straight.candidates(question(0), number + 1)
        assert straight.cache.rows_changed == straight.cache.trained_on == 320
        snapshot.save(straight, tmp_path / "bank")
        for name in ("restored", "made anew"):
            snapshot.restore(banks[name], tmp_path / "bank")
        banks["made anew"].cache = None
        images = {name: each.candidates(question(1), 3).rows for name, each in banks.items()}
        assert torch.equal(images["restored"].prototype, images["straight"].prototype)
        assert not torch.equal(images["made anew"].prototype, images["straight"].prototype)
        middles = {name: each.cache.inverted.centroids for name, each in banks.items()}
        assert (middles["restored"] == middles["straight"]).all()
        assert (middles["made anew"] != middles["straight"]).any()

    def test_another_number_of_partitions_starts_without_one(self, grown, tmp_path):
        snapshot.save(grown, tmp_path / "bank")
        again = bank_of(exact_rows=10, partitions=3, capacity=600)
        snapshot.restore(again, tmp_path / "bank")
        assert again.cache is None and len(again) == len(grown)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


class TestDamage:
    def refused(self, folder: Path, path: Path) -> None:
        with pytest.raises(RunError, match=re.escape(f"{path} cannot be used")):
            snapshot.restore(bank_of(), folder)
        with pytest.raises(RunError, match=re.escape(f"{path} cannot be used")):
            list(snapshot.read_shards(folder))

    def test_a_missing_file_is_named(self, damaged):
        path = shard(damaged)
        path.unlink()
        self.refused(damaged, path)

    @pytest.mark.parametrize("kept", [0, 4, 200, -1])
    def test_a_truncated_file_is_named(self, damaged, kept):
        path = shard(damaged)
        path.write_bytes(path.read_bytes()[:kept])
        self.refused(damaged, path)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
    def test_a_single_bit_is_noticed_wherever_it_is(self, damaged, saved, share, bit):
        path = shard(damaged)
        content = bytearray((saved / path.name).read_bytes())
        content[int(share * len(content))] ^= 1 << bit
        path.write_bytes(content)
        self.refused(damaged, path)

    def test_a_file_in_the_place_of_another_is_named(self, damaged):
        path, other = sorted(damaged.glob("shard_*"))[:2]
        path.write_bytes(other.read_bytes())
        self.refused(damaged, path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "",
            lambda text: "[]",
            lambda text: text[:-40],
            lambda text: text.replace('"images"', '"pictures"'),
            lambda text: text.replace('"digest": "', '"digest": "0', 1),
            lambda text: text.replace('"rows"', '"row"', 1),
            lambda text: text.replace('"digest": "', '"digest": "ff', 1),
            lambda text: text.replace('"shards": 7', '"shards": "7"'),
            lambda text: text.replace('"shards": 7', '"shards": 0'),
            lambda text: text.replace('"storage": "float32"', '"storage": "float31"'),
        ],
    )
    def test_so_is_a_manifest(self, damaged, change: Callable[[str], str]):
        path = damaged / MANIFEST
        path.write_text(change(path.read_text()))
        self.refused(damaged, path)

    def test_a_folder_without_one_is_named(self, tmp_path):
        self.refused(tmp_path / "absent", tmp_path / "absent" / MANIFEST)

    def test_a_later_format_is_refused(self, damaged):
        (damaged / MANIFEST).write_text('{"format": 2}')
        with pytest.raises(RunError, match=r"manifest.json is of an unknown format \(got 2\).* format 1:"):
            snapshot.restore(bank_of(), damaged)

    def test_a_full_disk_is_one_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(snapshot_copy, "save_file", no_space)
        with pytest.raises(RunError, match=r"bank cannot be written .*No space.*; make room"):
            snapshot.save(bank_of(*history()), tmp_path / "bank")
        assert not (tmp_path / "bank" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"storage": "float16"}, r"bank.storage is not that .*float32 \(got float16\); make it float32"),
        ({"dim": 8}, rf"model.embedding_dim is not that .*\(got 8\); make it {DIM}"),
        (
            {"classes": 6},
            r"classes of data.train are not those .*0, 1, 2, 3, 4 \(got 0, 1, 2, 3, 4, 5\); train on",
        ),
        ({"capacity": 63}, r"bank.capacity has no room .*\(got 63\); raise it to \d+, or go back to 700"),
        ({"capacity": SHARDS}, r"an image has \d segments.*; raise bank.capacity"),
    ],
)
def test_a_bank_of_other_settings_is_refused(saved, settings, message):
    with pytest.raises(RunError, match=message):
        snapshot.restore(bank_of(**settings), saved)


def test_the_capacity_that_is_asked_for_is_enough(saved):
    with pytest.raises(RunError) as refused:
        snapshot.restore(bank_of(capacity=63), saved)
    least = int(re.search(r"raise it to (\d+)", str(refused.value))[1])
    snapshot.restore(bank_of(capacity=least), saved)
    with pytest.raises(RunError, match=r"bank.capacity"):
        snapshot.restore(bank_of(capacity=least - SHARDS), saved)


def no_space(*_) -> None:
    raise OSError(28, "No space left on device")


def save_on_two(rank: int, folder: Path) -> str:
    """Save, and again with a full disk on one rank: what this one says."""
    bank = bank_of(*history(), exact_rows=10)
    bank.candidates(question(0), 4)
    snapshot.save(bank, folder / "bank")
    snapshot.save(bank_of(), folder / "empty")
    if rank == 1:
        snapshot_copy.save_file = no_space
    return trouble(lambda: snapshot.save(bank, folder / "full"))


def saved_when_a_file_is_due(rank: int, folder: Path) -> dict:
    """The rows that inverted files were made of before the checkpoint, and at the step after it."""
    bank, again = bank_of(*history(2), exact_rows=10), bank_of(exact_rows=10)
    bank.candidates(question(0), 2)
    before = bank.cache.trained_on
    more = rows_of([f"new {image}" for image in range(40)], [3] * 40, 2, 2)
    bank.add(take(more, more.position % comm.world() == rank), [])
    snapshot.save(bank, folder)
    snapshot.restore(again, folder)
    answers = [pack_memory(each.candidates(question(1), 3)) for each in (bank, again)]
    made_of = [each.cache.trained_on for each in (bank, again)]
    return {"before": before, "made_of": made_of, "alike": torch.equal(*answers)}


def restore_on_some(rank: int, folder: Path, all_shards: Sequence[int]) -> dict:
    """What this rank holds, and what it says of damaged snapshots."""
    outcome = {}
    for shards in all_shards:
        bank = bank_of(partitions=shards, capacity=100 * shards, exact_rows=10)
        snapshot.restore(bank, folder / "bank")
        outcome[shards] = dataclasses.asdict(contents(bank))
        if shards == SHARDS:
            outcome["index"] = bank.cache is not None
            outcome["answer"] = vars(bank.candidates(question(1), 4).labelled)
    outcome["damaged"] = trouble(lambda: snapshot.restore(bank_of(), folder / "damaged"))
    other = folder / ("bank" if rank == 0 else "empty")
    outcome["apart"] = trouble(lambda: snapshot.restore(bank_of(), other))
    return outcome


def trouble(work: Callable[[], None]) -> str:
    try:
        work()
    except RunError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_between_the_rows_that_double_and_the_new_files_changes_nothing(world, tmp_path):
    """All ranks make theirs at the next step, whether they were interrupted or not."""
    seen = (
        [saved_when_a_file_is_due(0, tmp_path / "bank")]
        if world == 1
        else spawn(saved_when_a_file_is_due, world, tmp_path / "bank")
    )
    rows = seen[0]["before"] + 120
    assert rows > 2 * seen[0]["before"]
    assert seen == [{"before": rows - 120, "made_of": [rows, rows], "alike": True}] * world


class TestRanks:
    """Saved by two ranks, restored by one, two and three."""

    pytestmark = pytest.mark.timeout(600)

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("ranks")
        full = spawn(save_on_two, 2, folder, seconds=300)
        assert all(re.search("full cannot be written .*No space", message) for message in full)
        assert not (folder / "full" / MANIFEST).exists()
        (folder / "damaged").mkdir()
        for path in (folder / "bank").iterdir():
            (folder / "damaged" / path.name).write_bytes(path.read_bytes())
        flip(shard(folder / "damaged"), -10)
        return folder

    def test_what_two_ranks_save_is_what_one_does(self, folder, saved):
        outcome, alone = (read_manifest(each) for each in (folder / "bank", saved))
        assert outcome.files == alone.files
        assert sorted(outcome.indexes) == [f"index_0000{rank}_of_00002.safetensors" for rank in range(2)]
        assert dataclasses.replace(outcome, world=1, indexes={}) == alone

    @pytest.mark.parametrize("world", [1, 2, 3])
    def test_any_number_of_ranks_holds_the_same_rows(self, folder, world):
        outcome = spawn(restore_on_some, world, folder, [SHARDS, 5, 14], seconds=300)
        expected = contents(bank_of(*history()))
        for shards in (SHARDS, 5, 14):
            parts = [BankRows(**rank[shards]) for rank in outcome]
            assert min(map(len, parts)) > 0
            assert same(by_identity(concatenate(parts)), expected)
        assert [rank["index"] for rank in outcome] == [world == 2] * world
        path = re.escape(str(shard(folder / "damaged")))
        for rank in outcome:
            assert re.match(rf"{path} cannot be used", rank["damaged"])
            assert ("do not see the same files" in rank["apart"]) == (world > 1)
        one = bank_of(*history())
        labelled = one.candidates(question(1), 4).labelled
        for rank in outcome:
            assert rank["answer"]["image"].equal(labelled.image)
            assert rank["answer"]["segment"].equal(labelled.segment)
