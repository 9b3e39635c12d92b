"""Rank, world and the few collectives that the step needs. Without a process group: a world of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from spml_dist.errors import SpmlError


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def join(backend: str) -> None:
    """Join the process group that the environment describes, as torchrun leaves it."""
    dist.init_process_group(backend)


def meet(backend: str, place: str, rank: int, world: int, seconds: float) -> None:
    """Join processes at HOST:PORT of rank 0. Raises what torch raises where not all come in that time."""
    patience = timedelta(seconds=seconds)
    dist.init_process_group(backend, f"tcp://{place}", patience, rank=rank, world_size=world)


def leave() -> None:
    dist.destroy_process_group()


def grouped() -> bool:
    """Whether there is a process group, of one process or several."""
    return dist.is_initialized()


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def sum_all(tensor: Tensor) -> Tensor:
    """Sum over all ranks, without gradient; the same bits on every rank."""
    total = tensor.detach().clone()
    if world() > 1:
        dist.all_reduce(total)
    return total


def from_rank_zero(value):
    """Rank 0's picklable value on every rank."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_every_rank(value) -> list:
    """Every rank's picklable value, in rank order."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values


def agree(trouble: SpmlError | None, *numbers: int) -> list[int]:
    """Raise the first rank's trouble on every rank, if any has one; else the sums of the numbers over all
    ranks. A collective."""
    if world() == 1:
        if trouble:
            raise trouble
        return list(numbers)
    ours = torch.tensor([trouble is not None, *numbers], dtype=torch.int64, device=_device())
    troubled, *sums = sum_all(ours).tolist()
    if troubled:
        raise next(each for each in from_every_rank(trouble) if each)
    return sums


def gather_table(row: Tensor) -> Tensor:
    """Every rank's row of integers, [world, n] int64 on the host, in rank order."""
    return gather_equal(row).cpu()


def gather_equal(row: Tensor) -> Tensor:
    """Every rank's row of equal length, [world, n], in rank order; without gradient."""
    if world() == 1:
        return row.detach()[None]
    table = row.new_empty(world(), len(row))
    dist.all_gather_into_tensor(table.view(-1), row.detach())
    return table


def gather_counts(count: int, device=None) -> list[int]:
    """Every rank's count, in rank order."""
    if world() == 1:
        return [count]
    counts = torch.empty(world(), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(counts, torch.tensor([count], device=device))
    return counts.tolist()


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of all ranks in rank order, [sum(counts), ...]; counts may differ and may be zero.

    rows: [counts[rank], ...]. Gradient flows back to each row's owner, summed over the ranks.
    """
    if world() == 1:
        return rows
    return _GatherRows.apply(rows, tuple(counts))


def _device() -> torch.device:
    """Where the process group's tensors must be."""
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        widest = max(counts)
        padded = rows.new_zeros(widest, *rows.shape[1:])
        padded[: len(rows)] = rows
        everything = rows.new_empty(len(counts) * widest, *rows.shape[1:])
        dist.all_gather_into_tensor(everything, padded)
        return torch.cat([everything[r * widest : r * widest + n] for r, n in enumerate(counts)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        # Every rank has a gradient for all rows, and is asked for the sum of its own alone: a reduce-scatter
        # of uneven parts, which takes half of what an all-reduce does. Summed here, so that the order is the
        # same in every run.
        counts, own = ctx.counts, ctx.counts[rank()]
        of_ranks = grad.new_empty(len(counts) * own, *grad.shape[1:])
        dist.all_to_all_single(of_ranks, grad.contiguous(), [own] * len(counts), list(counts))
        return of_ranks.unflatten(0, (len(counts), own)).sum(dim=0), None
