"""The bank's collectives: rows to their owners, answers to who merges them, chosen rows to all ranks.

Every rank calls the same functions in the same order, also with nothing to send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.partitions import owner_of, partition_of
from spml_dist.bank.rows import pack
from spml_dist.bank.search.exact import SlotNeighbours, in_order
from spml_dist.errors import RunError
from spml_dist.records import BankRows, Neighbours
from spml_dist.tensor_records import take


@dataclass(frozen=True)
class RowsInTransit:
    """Rows on their way to this rank."""

    packed: Tensor
    """[n, bytes a row] uint8, whole once `work` is done"""
    work: dist.Work | None

    def receive(self) -> Tensor:
        """Wait for the rows."""
        if self.work is not None:
            self.work.wait()
        return self.packed


def background_group() -> dist.ProcessGroup | None:
    """A group of all ranks for what travels while the step's own collectives go on; a collective."""
    if comm.world() == 1:
        return None
    group = dist.new_group()
    assert isinstance(group, dist.ProcessGroup)  # every rank is a member
    return group


def send(
    rows: BankRows,
    partitions: int,
    capacity: int,
    group: dist.ProcessGroup | None,
    trouble: RunError | None = None,
) -> RowsInTransit:
    """Send every row to the owner of its partition, in one uneven all-to-all that runs on; a collective.

    capacity: bank.capacity, of which every partition has an equal part; trouble: what is wrong
    with this rank's own rows. Raises it, or RunError if the rows of all ranks together exceed the capacity,
    on every rank: nothing was sent then.
    """
    owner = owner_of(partition_of(rows.image, partitions), partitions, comm.world())
    order = torch.argsort(owner, stable=True)
    going = torch.bincount(owner, minlength=comm.world())
    table = comm.gather_table(torch.cat([going, going.new_tensor([trouble is not None])]))
    counts, troubled = table[:, :-1], table[:, -1]
    if troubled.any():
        comm.agree(trouble)
    if counts.sum() > capacity // partitions * partitions:
        least = -(-counts.sum().item() // partitions) * partitions
        remedy = f"raise it to at least {least}, a multiple of that to remember earlier steps"
        remedy += " (and give another name=)"
        raise RunError("bank.capacity is too small for one global batch", capacity, remedy)
    outgoing = pack(take(rows, order))
    if comm.world() == 1:
        return RowsInTransit(outgoing, None)
    mine = counts[:, comm.rank()].tolist()
    incoming = outgoing.new_empty(sum(mine), outgoing.shape[1])
    work = dist.all_to_all_single(
        incoming, outgoing, mine, counts[comm.rank()].tolist(), group=group, async_op=True
    )
    assert work is not None  # as async_op promises
    if incoming.device.type != "cpu":
        work.wait()  # NCCL's groups take turns on a device; the wait is the stream's, not this process's
    return RowsInTransit(incoming, work)


def of_all_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks, [sum, ...] in rank order; a collective."""
    return comm.gather_rows(rows, comm.gather_counts(len(rows), rows.device))


def shares(queries: int) -> list[int]:
    """How many of the queries each rank merges the answers to: in order, in parts as equal as can be."""
    return [len(part) for part in torch.arange(queries).tensor_split(comm.world())]


def columns_of_share(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors [q, k] of any types, of this rank's share of the q those of all ranks as [share, world · k]; a
    collective.

    q and k are the same on all ranks. The tensors travel as bytes, in one message to each rank.
    """
    if comm.world() == 1:
        return list(values)
    outgoing, sizes = _packed(values), shares(len(values[0]))
    mine = sizes[comm.rank()]
    incoming = outgoing.new_empty(comm.world() * mine, *outgoing.shape[1:])
    dist.all_to_all_single(incoming, outgoing, [mine] * comm.world(), sizes)
    by_rank = incoming.view(comm.world(), mine, *outgoing.shape[1:])
    return _columns(by_rank.permute(1, 0, 2, 3).flatten(1, 2), values)


def columns_of_all_shares(values: Sequence[Tensor], queries: int) -> list[Tensor]:
    """Tensors [share, k] of any types, of all shares as [queries, k]; a collective, of one message."""
    if comm.world() == 1:
        return list(values)
    return _columns(comm.gather_rows(_packed(values), shares(queries)), values)


def _packed(values: Sequence[Tensor]) -> Tensor:
    """[q, k, bytes] uint8: columns of any types side by side, which are one message then."""
    return torch.cat([v.contiguous().unsqueeze(2).view(torch.uint8) for v in values], dim=2)


def _columns(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """What was packed, with the types of other such columns."""
    parts = packed.split([value.element_size() for value in like], dim=2)
    return [
        part.clone(memory_format=torch.contiguous_format).view(value.dtype).squeeze(2)
        for part, value in zip(parts, like, strict=True)
    ]


def merge_neighbours(rows: BankRows, answers: Sequence[SlotNeighbours]) -> list[Neighbours]:
    """The best of every rank's answers to the same lookups; a collective.

    rows: of this rank, which its slots name; answers: [Q, k] each, the same lookups in the same order on
    every rank. Each has its k best already, so the k best of all ranks are among them: merging is exact.

    Each rank is sent all answers to its share of the queries, merges those, and sends the best to all, since
    the rows that join a step are chosen among everybody's. So what a rank receives and sorts does not grow
    with the number of ranks, as it would if all answers went to all.
    """
    if not answers:
        return []
    k, queries = answers[0].slot.shape[1], [len(one.slot) for one in answers]
    similarity, slot = (torch.cat([getattr(one, name) for one in answers]) for name in ("similarity", "slot"))
    there, at = slot >= 0, slot.clamp(min=0)
    image, segment, label = (
        torch.where(there, getattr(rows, name)[at], missing)
        for name, missing in (("image", 0), ("segment", -1), ("label", -1))
    )
    columns = columns_of_share([similarity, image, segment, label])
    if comm.world() > 1:
        order = in_order(*columns[:3])[:, :k]
        columns = columns_of_all_shares([column.gather(1, order) for column in columns], sum(queries))
    parts = zip(*(column.split(queries) for column in columns), strict=True)
    return [Neighbours(best.float(), *others) for best, *others in parts]
