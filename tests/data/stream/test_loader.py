"""The stream: the same batches for any number of loader processes and workers, resumed twice in a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path

import pytest
import torch

from spml_dist import comm
from spml_dist.data.stream.loader import Stream
from spml_dist.errors import DataError, RunError
from spml_dist.records import IMAGENET, Batch, Normalisation

from .conftest import CLASSES, make_sample, spoil

SETTINGS = {
    "num_classes": len(CLASSES),
    "batch": 4,
    "crop": 24,
    "scale": (0.5, 1.5),
    "mirror": True,
    "window_shards": 2,
    "seed": 235,
}


def steps(folder, count, **changes) -> list[tuple[list[Batch], dict]]:
    return list(islice(Stream(folder, **{**SETTINGS, **changes}).steps(), count))


def assert_same(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a == b, field.name


def joined(batches: list[Batch]) -> Batch:
    """Parts of one global batch, in order, as one."""
    values = {field.name: [getattr(batch, field.name) for batch in batches] for field in fields(Batch)}
    epochs, keys = values.pop("epoch"), values.pop("keys")
    assert len(set(epochs)) == 1
    tensors = {name: torch.cat(parts) for name, parts in values.items()}
    return Batch(keys=tuple(key for part in keys for key in part), epoch=epochs[0], **tensors)


class TestPlainLoop:
    def test_five_lines_give_batches_without_end(self, packed):
        keys = []
        for batch in Stream(packed(), batch=4, crop=24):
            assert batch.image.shape == (4, 3, 24, 24)
            keys += batch.keys
            if batch.epoch == 2:
                break
        assert len(keys) == 4 * 5 and set(keys) == {f"beach-{number:03d}" for number in range(7)}

    def test_they_are_those_of_the_steps_micro_batch_by_micro_batch(self, packed):
        folder = packed()
        expected = [batch for batches, _ in steps(folder, 3, accumulation=2) for batch in batches]
        stream = Stream(folder, **SETTINGS, accumulation=2)
        for one, other in zip(expected, islice(stream, 6), strict=True):
            assert_same(one, other)

    @pytest.mark.parametrize("processes", [0, 1])
    def test_another_stream_goes_on_after_the_last_batch_of_this_one_and_so_does_itself(
        self, packed, processes
    ):
        folder = packed()
        expected = list(islice(Stream(folder, **SETTINGS), 4))
        stream = Stream(folder, **SETTINGS, loader_processes=processes)
        for batch, state in zip(islice(stream, 2), (1, 2), strict=True):
            assert stream.state()["step"] == state and batch.keys == expected[state - 1].keys
        other = Stream(folder, **SETTINGS, start_state=stream.state())
        for going_on in (other, stream):
            for one, another in zip(expected[2:], islice(going_on, 2), strict=True):
                assert_same(one, another)

    def test_a_new_stream_s_state_is_the_beginning_and_a_step_is_over_with_its_last_micro_batch(self, packed):
        stream = Stream(packed(), **SETTINGS, accumulation=2)
        assert stream.state() == {"step": 0, "fingerprint": stream.fingerprint, **asdict(IMAGENET)}
        batches = iter(stream)
        steps_over = [(next(batches), stream.state()["step"])[1] for _ in range(3)]
        assert steps_over == [1, 1, 2]

    def test_rank_and_world_are_those_of_the_process_group(self, packed, monkeypatch):
        monkeypatch.setattr(comm, "rank", lambda: 1)
        monkeypatch.setattr(comm, "world", lambda: 2)
        (batch,) = islice(Stream(packed(), batch=4, crop=24), 1)
        assert batch.position.tolist() == [2, 3]


def test_a_stream_that_goes_on_normalises_as_it_began(packed):
    """Whatever weights are there now; a state of an earlier release means ImageNet's mean and deviation."""
    folder, own = packed(), Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    whole = steps(folder, 3, normalisation=own)
    (batches, _), *_ = steps(folder, 1, normalisation=IMAGENET, start_state=whole[1][1])
    assert_same(batches[0], whole[2][0][0])
    old = {key: value for key, value in whole[1][1].items() if key not in ("mean", "deviation")}
    (then, _), *_ = steps(folder, 1, normalisation=own, start_state=old)
    assert_same(then[0], steps(folder, 3)[2][0][0])
    assert not torch.equal(then[0].image, batches[0].image)


def test_a_batch_has_the_promised_shapes_and_tags(packed):
    ((batch,), state) = steps(packed(), 1)[0]
    assert state["step"] == 1
    assert batch.image.shape == (4, 3, 24, 24) and batch.image.dtype == torch.float32
    assert batch.semantic.shape == (4, 24, 24) and batch.semantic.dtype == torch.uint8
    assert batch.regions.shape == (4, 24, 24) and batch.regions.dtype == torch.int32
    assert batch.window.shape == (4, 4) and batch.window.dtype == torch.float32
    assert batch.position.tolist() == [0, 1, 2, 3] and batch.epoch == 0
    samples = [make_sample(int(key.removeprefix("beach-"))) for key in batch.keys]
    assert batch.tags_known.tolist() == [sample.tags is not None for sample in samples]
    for row, sample in zip(batch.tags.tolist(), samples, strict=True):
        assert [k for k, tagged in enumerate(row) if tagged] == list(sample.tags or ())


def test_windows_say_which_part_of_the_image_a_crop_shows(packed):
    """Images of 40 × 52 pixels: the crop's share of the scaled height and width, mirrored in some."""
    windows = torch.cat([batch.window for (batch,), _ in steps(packed(), 6, scale=(2.0, 2.0))])
    top, left, bottom, right = windows.T
    torch.testing.assert_close(bottom - top, torch.full((24,), 24 / 80))
    torch.testing.assert_close((right - left).abs(), torch.full((24,), 24 / 104))
    assert 4 < (left > right).sum() < 20
    assert windows.min() >= 0 and windows.max() <= 1, "nothing is padded"


def test_every_epoch_shows_every_image_once_and_differently(packed):
    batches = [batch for (batch,), _ in steps(packed(7), 7)]
    keys = [key for batch in batches for key in batch.keys]
    images = torch.cat([batch.image for batch in batches])
    for epoch in range(4):
        assert sorted(keys[7 * epoch : 7 * epoch + 7]) == [f"beach-{number:03d}" for number in range(7)]
    views = [images[i] for i, key in enumerate(keys) if key == "beach-000"]
    assert len(views) == 4 and not any(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])
    assert [batch.epoch for batch in batches] == [0, 0, 1, 1, 2, 2, 3]


def test_loader_processes_and_interruptions_change_nothing(packed):
    """Interrupted twice, each time with another number of processes, and a corrupt sample on the way."""
    folder = packed()
    spoil(folder / "beach-000001.tar", "beach-004")
    changes = {"accumulation": 2, "skip_corrupt": 0.5}
    whole = steps(folder, 9, **changes)
    parts, state = [], None
    for processes in (2, 0, 3, 1):
        parts += steps(
            folder, 3 if processes == 2 else 2, start_state=state, loader_processes=processes, **changes
        )
        state = parts[-1][1]
    for (expected, state), (batches, other) in zip(whole, parts, strict=True):
        assert state == other
        for one, another in zip(expected, batches, strict=True):
            assert_same(one, another)


@pytest.mark.parametrize("world", [2, 3, 6])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_all_ranks_together_see_what_one_alone_sees(packed, world, accumulation):
    folder = packed()
    alone = steps(folder, 3, accumulation=accumulation)
    ranks = [steps(folder, 3, accumulation=accumulation, rank=rank, world=world) for rank in range(world)]
    for step, (expected, state) in enumerate(alone):
        assert all(rank[step][1] == state for rank in ranks)
        for micro, batch in enumerate(expected):
            assert_same(joined([rank[step][0][micro] for rank in ranks]), batch)


@pytest.mark.parametrize(
    ("samples", "shard_size", "batch"),
    [(5, 5, 4), (5, 2, 5), (3, 3, 8), (1, 1, 4), (2, 1, 7)],
    ids=["one more than a batch", "just a batch", "less than a batch", "one sample", "two tars"],
)
def test_more_ranks_than_tars_and_batches_of_nearly_everything(packed, samples, shard_size, batch):
    """Nothing is dropped or repeated out of turn, and every rank has as many steps as the others."""
    folder, count = packed(samples, shard_size), 2 * samples + 1
    alone = [b for (b,), _ in steps(folder, count, batch=batch)]
    for world in (2, 4):
        ranks = [steps(folder, count, batch=batch, rank=rank, world=world) for rank in range(world)]
        for step, expected in enumerate(alone):
            assert_same(joined([rank[step][0][0] for rank in ranks]), expected)
    keys = [key for b in alone for key in b.keys]
    for epoch in range(len(keys) // samples):
        assert len(set(keys[epoch * samples : (epoch + 1) * samples])) == samples


def test_a_rank_without_images_gets_empty_batches(packed):
    ((batch,), _) = steps(packed(), 1, batch=2, rank=4, world=5)[0]
    assert len(batch) == 0 and batch.image.shape == (0, 3, 24, 24) and batch.regions.shape == (0, 24, 24)
    assert batch.window.shape == (0, 4) and batch.window.dtype == torch.float32
    assert batch.tags.shape == (0, len(CLASSES)) and batch.tags_known.shape == (0,)


def test_a_batch_may_be_larger_than_the_data_set(packed):
    ((batch,), _) = steps(packed(3), 1, batch=8)[0]
    assert sorted(batch.keys[:3]) == sorted(batch.keys[3:6]) == ["beach-000", "beach-001", "beach-002"]


def test_resuming_twice_in_a_row_goes_on_where_it_stopped(packed):
    folder = packed()
    whole = steps(folder, 6)
    first = steps(folder, 2)
    second = steps(folder, 1, start_state=first[-1][1])
    third = steps(folder, 3, start_state=second[-1][1])
    for (expected, state), (batches, other) in zip(whole, first + second + third, strict=True):
        assert state == other
        assert_same(expected[0], batches[0])


def test_a_state_may_be_resumed_with_another_number_of_workers(packed):
    folder = packed()
    state = steps(folder, 2, world=2, rank=1, accumulation=2)[-1][1]
    assert_same(steps(folder, 1, start_state=state)[0][0][0], steps(folder, 3)[2][0][0])


@pytest.mark.parametrize("change", [{"batch": 5}, {"seed": 1}, {"window_shards": 1}])
def test_a_state_of_another_order_is_refused(packed, change):
    folder = packed()
    state = steps(folder, 1)[-1][1]
    with pytest.raises(RunError, match=r"since the checkpoint, or its order did; .*stream\.batch"):
        Stream(folder, **{**SETTINGS, **change}, start_state=state)


def test_a_state_of_other_data_is_refused(packed):
    state = steps(packed(7), 1)[-1][1]
    with pytest.raises(RunError, match=r"other: data\.train was packed anew .*; to resume, .* another name"):
        Stream(packed(8, name="other"), **SETTINGS, start_state=state)


def test_a_state_survives_moving_the_folder(packed):
    folder = packed()
    state = steps(folder, 1)[-1][1]
    moved = folder.rename(folder.with_name("moved"))
    assert_same(steps(moved, 1, start_state=state)[0][0][0], steps(moved, 2)[1][0][0])


def test_classes_change_places_in_a_mirror(packed):
    folder = packed()
    plain, swapped = (steps(folder, 3, mirror_swaps=swaps) for swaps in ((), ((1, 2),)))
    changed = 0
    for ((one,), _), ((other,), _) in zip(plain, swapped, strict=True):
        for a, b in zip(one.semantic, other.semantic, strict=True):
            if not torch.equal(a, b):
                changed += 1
                assert torch.equal((a == 1), (b == 2)) and torch.equal((a == 2), (b == 1))
    assert 0 < changed < 12


def test_tags_change_places_with_the_labels(packed):
    folder = packed()
    plain, swapped = (steps(folder, 3, mirror_swaps=swaps) for swaps in ((), ((1, 2),)))
    changed = 0
    for ((one,), _), ((other,), _) in zip(plain, swapped, strict=True):
        mirrored = one.window[:, 1] > one.window[:, 3]
        assert torch.equal(other.tags, torch.where(mirrored[:, None], one.tags[:, [0, 2, 1, 3]], one.tags))
        assert torch.equal(other.tags_known, one.tags_known)
        changed += int((one.tags != other.tags).any(dim=1).sum())
    assert 0 < changed < 12


@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_shard_is_named_wherever_it_was_found(packed, processes):
    folder = packed(3, 3)
    tar = folder / "beach-000000.tar"
    tar.write_bytes(tar.read_bytes()[:4000])
    with pytest.raises(DataError) as caught:
        steps(folder, 1, loader_processes=processes)
    assert str(caught.value).startswith(str(tar)) and "Traceback" not in str(caught.value)


def test_the_number_of_classes_has_to_be_the_model_s(packed):
    with pytest.raises(DataError, match=r"number of classes, where 21 are expected \(got 4\)"):
        Stream(packed(), **{**SETTINGS, "num_classes": 21})


def test_reading_draws_nothing_from_the_training_s_random_numbers(packed):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    steps(packed(), 2)
    assert torch.equal(torch.rand(3), expected)


KILLED = """
import sys
from tests.data.stream.test_loader import SETTINGS, Stream
if __name__ == "__main__":
    import multiprocessing, time
    stream = iter(Stream(sys.argv[1], **SETTINGS, loader_processes=1))
    next(stream)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def test_loader_processes_end_with_a_training_that_is_killed(packed, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(KILLED)
    command = [sys.executable, script, packed()]
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=root) as training:
        children = [int(pid) for pid in training.stdout.readline().split()]
        training.send_signal(signal.SIGKILL)
    assert children
    for pid in children:
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"loader process {pid} is still there")
