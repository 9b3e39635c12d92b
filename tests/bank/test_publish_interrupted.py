"""A worker that dies inside a publish: the others notice, and the checkpoint has the bank whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch.distributed as dist

from spml_dist.bank import exchange, snapshot
from spml_dist.bank.rows import digest, written
from spml_dist.bank.snapshot_manifest import read_manifest
from spml_dist.tensor_records import take
from tests.bank.test_snapshot import bank_of, contents, history, same
from tests.spawn import spawn

SAVED, INTERRUPTED = history(5)[:4], history(5)[4]


def publish_until_death(rank: int, folder: Path, started: bool) -> None:
    """Two ranks save a bank and publish on; rank 1 dies between the agreement on what is sent and the
    all-to-all, or (started) while that is on its way."""
    bank = bank_of(*SAVED)
    snapshot.save(bank, folder / "bank")
    if rank == 1:
        exchange.dist = _Dying(folder / "died", started)
    bank.add(take(INTERRUPTED, INTERRUPTED.position % 2 == rank), [])
    bank.settle()


class _Dying:
    """torch.distributed, whose all-to-all its process does not survive."""

    def __init__(self, witness: Path, started: bool):
        self.witness, self.started = witness, started

    def all_to_all_single(self, *given, **options) -> None:
        if self.started:
            dist.all_to_all_single(*given, **options)
        self.witness.touch()
        os._exit(1)


@pytest.fixture(scope="module", params=[False, True], ids=["before it is sent", "while it is sent"])
def broken_off(request, tmp_path_factory) -> tuple[Path, str]:
    """What is left in the folder, and what the ranks that outlived the publish say."""
    folder = tmp_path_factory.mktemp("broken_off")
    with pytest.raises(AssertionError) as message:
        spawn(publish_until_death, 2, folder, request.param, seconds=200)
    return folder, str(message.value)


class TestTheSurvivor:
    def test_fails_and_does_not_wait_for_ever(self, broken_off):
        """The lost connection is its error: neither the group's time limit nor the test's had to end it."""
        folder, message = broken_off
        assert (folder / "died").exists()
        assert message.startswith("rank 0:") and "rank 1:" not in message
        assert any(word in message for word in ("closed by peer", "reset by peer", "Broken pipe"))


class TestTheCheckpoint:
    def test_has_the_bank_whole(self, broken_off):
        folder, _ = broken_off
        restored = bank_of()
        snapshot.restore(restored, folder / "bank")
        expected = contents(bank_of(*SAVED))
        assert same(contents(restored), expected)
        assert written(digest(contents(restored))) == read_manifest(folder / "bank").digest

    def test_goes_on_as_if_nothing_had_been_published(self, broken_off):
        folder, _ = broken_off
        restored = bank_of()
        snapshot.restore(restored, folder / "bank")
        restored.add(INTERRUPTED, [])
        assert same(contents(restored), contents(bank_of(*SAVED, INTERRUPTED)))
        assert not same(contents(restored), contents(bank_of(*SAVED)))
