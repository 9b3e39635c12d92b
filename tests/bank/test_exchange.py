"""Rows on their way between three ranks, some of which have nothing to say."""

from __future__ import annotations

import pytest
import torch

from spml_dist.bank import exchange
from spml_dist.bank.partitions import owner_of, partition_of
from spml_dist.bank.rows import by_identity, digest, pack, unpack
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, contents, rows_of
from tests.spawn import spawn

SHARDS, WORLD = 7, 3
SENT = {"all": [6, 2, 4], "one": [0, 5, 0], "none": [0, 0, 0]}
"""images that each rank sends"""


def rows_from(rank: int, images: int) -> BankRows:
    return rows_of([f"{rank} {i}" for i in range(images)], [1 + i % 3 for i in range(images)], seed=rank)


def table(rank: int, queries: int) -> list[torch.Tensor]:
    """[q, 2] of four types, that differ by rank, place and type."""
    number = torch.arange(2 * queries).view(queries, 2) + 1000 * rank
    return [number.to(t) + t.itemsize for t in (torch.float32, torch.int64, torch.int32, torch.int16)]


def observe(rank: int) -> dict:
    seen, group = {}, exchange.background_group()
    for name, images in SENT.items():
        own = rows_from(rank, images[rank])
        sending = exchange.send(own, SHARDS, 1000, group)
        # Another collective meanwhile: the rows travel in a group of their own.
        seen["of_all_ranks", name] = exchange.of_all_ranks(pack(own))
        seen["sent", name] = unpack(sending.receive(), DIM, CLASSES, "float32")
    for queries in (0, 3):
        seen["beside", queries] = exchange.columns_of_all_ranks(table(rank, queries))
    try:
        exchange.send(rows_from(rank, 2), SHARDS, 13, group)
    except RunError as error:
        seen["refused"] = str(error)
    exchange.send(rows_from(rank, 1), SHARDS, 7, group).receive()
    exchange.send(rows_from(rank, 2), SHARDS, 14, group).receive()
    return seen


@pytest.fixture(scope="module", params=[1, WORLD])
def ranks(request) -> list[dict]:
    return [observe(0)] if request.param == 1 else spawn(observe, request.param)


@pytest.mark.parametrize("name", SENT)
def test_every_row_arrives_at_its_owner_once(ranks, name):
    world = len(ranks)
    everything = concatenate([rows_from(rank, SENT[name][rank]) for rank in range(world)])
    for rank, one in enumerate(ranks):
        owned = owner_of(partition_of(everything.image, SHARDS), SHARDS, world) == rank
        arrived, wanted = one["sent", name], take(everything, owned)
        assert len(arrived) == len(wanted) and contents(arrived) == contents(wanted)
        assert (digest(by_identity(arrived)) == digest(by_identity(wanted))).all()


@pytest.mark.parametrize("name", SENT)
def test_everyone_has_the_rows_of_all_in_the_order_of_the_ranks(ranks, name):
    wanted = torch.cat([pack(rows_from(rank, SENT[name][rank])) for rank in range(len(ranks))])
    assert all(torch.equal(one["of_all_ranks", name], wanted) for one in ranks)


@pytest.mark.parametrize("queries", [0, 3])
def test_answers_stand_side_by_side_with_their_types(ranks, queries):
    wanted = [
        torch.cat(parts, dim=1) for parts in zip(*(table(r, queries) for r in range(len(ranks))), strict=True)
    ]
    for one in ranks:
        for ours, theirs in zip(one["beside", queries], wanted, strict=True):
            assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_more_than_the_bank_holds_is_refused_by_all(ranks):
    """Three rows a rank: three ranks have nine, for seven places: thirteen are one a shard."""
    for one in ranks:
        if len(ranks) == WORLD:
            assert one["refused"].startswith("bank.capacity is too small for one global batch (got 13)")
            assert "at least 14," in one["refused"]
        else:
            assert "refused" not in one
