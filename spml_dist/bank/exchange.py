"""The bank's collectives: rows to their owners, answers and chosen rows to everybody.

Every rank calls the same functions in the same order, with nothing to say too.
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
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import take


@dataclass(frozen=True)
class Sending:
    """Rows on their way to this rank."""

    packed: Tensor
    """[n, bytes a row] uint8, whole once `work` is done"""
    work: object | None

    def receive(self) -> Tensor:
        """Wait for the rows."""
        if self.work is not None:
            self.work.wait()
        return self.packed


def own_group() -> object | None:
    """A group of all ranks for what travels while the step's own collectives go on; a collective."""
    return dist.new_group() if comm.world() > 1 else None


def send(
    rows: BankRows, shards: int, capacity: int, group: object | None, trouble: RunError | None = None
) -> Sending:
    """Send every row to the owner of its virtual shard, in one uneven all-to-all that runs on; a collective.

    capacity: bank.capacity, of which every virtual shard has an equal part; trouble: what this rank has to
    say against its own rows. Raises it, or RunError if the rows of all ranks together exceed the capacity, on
    every rank: nothing was sent then.
    """
    owner = owner_of(partition_of(rows.image, shards), shards, comm.world())
    order = torch.argsort(owner, stable=True)
    going = torch.bincount(owner, minlength=comm.world())
    table = comm.gather_table(torch.cat([going, going.new_tensor([trouble is not None])]))
    counts, troubled = table[:, :-1], table[:, -1]
    if troubled.any():
        comm.agree(trouble)
    if counts.sum() > capacity // shards * shards:
        least = -(-counts.sum().item() // shards) * shards
        remedy = f"raise it to at least {least}, a multiple of that to remember earlier steps"
        remedy += " (and give another name=)"
        raise RunError("bank.capacity is too small for one global batch", capacity, remedy)
    outgoing = pack(take(rows, order))
    if comm.world() == 1:
        return Sending(outgoing, None)
    mine = counts[:, comm.rank()].tolist()
    incoming = outgoing.new_empty(sum(mine), outgoing.shape[1])
    work = dist.all_to_all_single(
        incoming, outgoing, mine, counts[comm.rank()].tolist(), group=group, async_op=True
    )
    if incoming.device.type != "cpu":
        work.wait()  # NCCL's groups take turns on a device; the wait is the stream's, not this process's
    return Sending(incoming, work)


def everyones(rows: Tensor) -> Tensor:
    """The rows of all ranks, [sum, ...] in rank order; a collective."""
    return comm.gather_rows(rows, comm.gather_counts(len(rows), rows.device))


def side_by_side(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors [q, k] of any types, those of all ranks as [q, world · k]; q and k are the same on all."""
    if comm.world() == 1:
        return list(values)
    widths = [value.element_size() for value in values]
    sent = torch.cat([v.contiguous().unsqueeze(2).view(torch.uint8) for v in values], dim=2)
    parts = comm.gather_rows(sent, [len(sent)] * comm.world()).view(comm.world(), *sent.shape)
    parts = parts.permute(1, 0, 2, 3).flatten(1, 2)
    return [
        part.clone(memory_format=torch.contiguous_format).view(value.dtype).squeeze(2)
        for part, value in zip(parts.split(widths, dim=2), values, strict=True)
    ]
