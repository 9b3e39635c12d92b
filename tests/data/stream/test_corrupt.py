"""Corrupt samples: refused, or by an explicit option left out, the same whoever reads them."""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
from itertools import islice

import pytest
import torch

from spml_dist.data.stream.loader import Stream
from spml_dist.data.stream.reader import CorruptSample
from spml_dist.errors import DataError

from .conftest import spoil
from .test_loader import SETTINGS, assert_same, joined, steps

BROKEN = "beach-004"


@pytest.fixture
def folder(packed):
    """Two shards of five; one image of the first does not decode."""
    folder = packed(10, 5)
    spoil(folder / "beach-000000.tar", BROKEN)
    return folder


def test_the_first_stops_the_stream_and_the_option_is_named(folder):
    with pytest.raises(DataError) as caught:
        steps(folder, 3)
    message = str(caught.value)
    assert message.startswith(f"{folder}/beach-000000.tar: {BROKEN}.jpg: cannot be decoded")
    assert "stream.skip_corrupt" in message


def test_a_share_leaves_it_out_and_nothing_else(folder, packed):
    whole, rest = steps(packed(10, 5, "sound"), 5), steps(folder, 5, skip_corrupt=0.2)
    seen = 0
    for ((expected,), _), ((batch,), _) in zip(whole, rest, strict=True):
        assert batch.keys == expected.keys and batch.position.tolist() == expected.position.tolist()
        for i, key in enumerate(batch.keys):
            if key == BROKEN:
                seen += 1
                assert (batch.semantic[i] == 255).all() and (batch.image[i] == 0).all()
                assert not batch.tags_known[i] and not batch.tags[i].any()
            else:
                assert torch.equal(batch.image[i], expected.image[i])
                assert torch.equal(batch.semantic[i], expected.semantic[i])
    assert seen == 2, "five batches of four are two epochs of ten"


def test_each_is_counted_and_named_once(folder, caplog):
    stream = Stream(folder, **SETTINGS, skip_corrupt=0.2)
    with caplog.at_level(logging.WARNING):
        list(islice(stream, 5))
    reason = f"{folder}/beach-000000.tar: {BROKEN}.jpg: cannot be decoded"
    assert stream.skipped == {reason: 2}
    assert caplog.messages == [f"left out: {reason}"]


def test_any_number_of_ranks_and_any_resume_leave_out_the_same(folder):
    alone = steps(folder, 5, skip_corrupt=0.2)
    ranks = [steps(folder, 5, skip_corrupt=0.2, rank=rank, world=3) for rank in range(3)]
    for step, ((batch,), _) in enumerate(alone):
        assert_same(joined([rank[step][0][0] for rank in ranks]), batch)
        ((again,), _) = steps(folder, 1, skip_corrupt=0.2, start_state=alone[step - 1][1] if step else None)[
            0
        ]
        assert_same(again, batch)


@pytest.mark.parametrize(("keys", "share"), [((), 0.19), (("beach-000",), 0.2), (("beach-000",), 0.39)])
def test_more_than_the_share_of_a_shard_is_refused(folder, keys, share):
    spoil(folder / "beach-000000.tar", *keys)
    with pytest.raises(DataError) as caught:
        steps(folder, 3, skip_corrupt=share)
    message = str(caught.value)
    assert f"beach-000000.tar: {1 + len(keys)} of 5 samples are corrupt" in message
    assert f"stream.skip_corrupt {share}" in message


def test_other_shards_do_not_count(folder):
    spoil(folder / "beach-000001.tar", "beach-007")
    assert len(steps(folder, 5, skip_corrupt=0.2)) == 5


def test_a_missing_member_is_a_corrupt_sample_too(folder):
    tar = folder / "beach-000001.tar"
    data = tar.read_bytes()
    name = b"beach-007.semantic.png"
    entry = tarfile.TarInfo("beach-007.semantic.pgn")
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        member = file.getmember(name.decode())
    entry.size, entry.mode = member.size, member.mode
    header = entry.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(data[: member.offset] + header + data[member.offset + len(header) :])
    assert len(steps(folder, 5, skip_corrupt=0.2)) == 5


def test_a_damaged_tar_is_never_left_out(folder):
    tar = folder / "beach-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-4096])
    with pytest.raises(DataError, match=r"beach-000001\.tar: not the \d+ bytes"):
        steps(folder, 5, skip_corrupt=1.0)


def test_the_error_keeps_its_key_between_processes():
    error = pickle.loads(pickle.dumps(CorruptSample("a.tar: b.jpg", "zeros", "pack again", "b")))
    assert (error.key, str(error)) == ("b", "a.tar: b.jpg (got zeros); pack again")
