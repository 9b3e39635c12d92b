"""Rows on their way between three ranks, some of which have nothing to say."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from spml_dist.bank import exchange
from spml_dist.bank.partitions import owner_of, partition_of
from spml_dist.bank.rows import by_identity, digest, pack, unpack
from spml_dist.bank.search.exact import SlotNeighbours
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, contents, rows_of
from tests.spawn import spawn

SHARDS, WORLD = 7, 3
SENT = {"all": [6, 2, 4], "one": [0, 5, 0], "none": [0, 0, 0]}
"""images that each rank sends"""
QUERIES = [0, 2, 4, 9]
ASKED, K = 20, 3


def rows_from(rank: int, images: int) -> BankRows:
    return rows_of([f"{rank} {i}" for i in range(images)], [1 + i % 3 for i in range(images)], seed=rank)


def table(rank: int, queries: int) -> list[torch.Tensor]:
    """[q, 2] of four types, that differ by rank, place and type."""
    number = torch.arange(2 * queries).view(queries, 2) + 1000 * rank
    return [number.to(t) + t.itemsize for t in (torch.float32, torch.int64, torch.int32, torch.int16)]


def merging(rank: int) -> list[tuple[str, int]]:
    """The collectives in which answers to two lookups are merged, and the bytes that each brings here."""
    received = []

    def noting(name: str):
        collective = getattr(dist, name)

        def noted(out: torch.Tensor, *others, **options):
            received.append((name, out.numel() * out.element_size()))
            return collective(out, *others, **options)

        return patch.object(dist, name, noted)

    rows = rows_from(rank, 4)
    slot = torch.arange(ASKED * K).view(ASKED, K) % len(rows)
    found = SlotNeighbours(slot.float(), slot)
    with noting("all_to_all_single"), noting("all_gather_into_tensor"):
        exchange.merge_neighbours(rows, [take(found, slice(0, 12)), take(found, slice(12, ASKED))])
    return received


def observe(rank: int) -> dict:
    seen, group = {}, exchange.background_group()
    for name, images in SENT.items():
        own = rows_from(rank, images[rank])
        sending = exchange.send(own, SHARDS, 1000, group)
        # Another collective meanwhile: the rows travel in a group of their own.
        seen["of_all_ranks", name] = exchange.of_all_ranks(pack(own))
        seen["sent", name] = unpack(sending.receive(), DIM, CLASSES, "float32")
    for queries in QUERIES:
        seen["share", queries] = exchange.columns_of_share(table(rank, queries))
        seen["shares", queries] = exchange.columns_of_all_shares(seen["share", queries], queries)
    seen["merging"] = merging(rank)
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


@pytest.mark.parametrize("queries", QUERIES)
def test_answers_stand_side_by_side_with_their_types_where_they_are_merged(ranks, queries):
    world = len(ranks)
    wanted = [
        torch.cat(parts, dim=1) for parts in zip(*(table(r, queries) for r in range(world)), strict=True)
    ]
    sizes = [len(one["share", queries][0]) for one in ranks]
    assert sum(sizes) == queries and max(sizes) - min(sizes) <= 1
    for number in range(len(wanted)):
        ours = torch.cat([one["share", queries][number] for one in ranks])
        assert torch.equal(ours, wanted[number]) and ours.dtype == wanted[number].dtype
        for one in ranks:
            everything = one["shares", queries][number]
            assert torch.equal(everything, wanted[number]) and everything.dtype == wanted[number].dtype


def test_what_a_rank_receives_to_merge_answers_does_not_grow_with_the_ranks(ranks):
    """Its own share from each rank, and of each share the best: 18 bytes an answer."""
    if len(ranks) == 1:
        assert ranks[0]["merging"] == []
        return
    for rank, one in enumerate(ranks):
        share = len(torch.arange(ASKED).tensor_split(WORLD)[rank])
        widest = -(-ASKED // WORLD)
        assert one["merging"] == [
            ("all_to_all_single", WORLD * share * K * 18),
            ("all_gather_into_tensor", WORLD * widest * K * 18),
        ]


def test_more_than_the_bank_holds_is_refused_by_all(ranks):
    """Three rows a rank: three ranks have nine, for seven places: thirteen are one a shard."""
    for one in ranks:
        if len(ranks) == WORLD:
            assert one["refused"].startswith("bank.capacity is too small for one global batch (got 13)")
            assert "at least 14," in one["refused"]
        else:
            assert "refused" not in one
