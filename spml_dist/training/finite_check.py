"""Watches loss and gradients: after a number that is not finite, no weight changes any more.

Everything happens on the device, without waiting for it: the optimiser is handed a flag that makes its
kernel do nothing, and the host reads that flag at logged steps only. By then the weights are still those
of the last good step, and it is known which step and which images it was.

The all-reduce in which the ranks agree carries two more flags: that somebody asks the training to stop, and
that a checkpoint cannot be written.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spml_dist import comm
from spml_dist.errors import RunError


class FiniteCheck:
    """One rank's; `agree` and `require_finite` are collectives."""

    def __init__(self, model: nn.Module, device: torch.device):
        self._times_zero = torch.zeros((), device=device)
        """the sum of everything observed, times zero: 0 while all is finite, NaN for ever after"""
        self._first_bad = torch.zeros((), dtype=torch.int64, device=device)
        """1 + this rank's first bad step, or 0"""
        self.stop = torch.zeros((), device=device)
        """1 once a loss or gradient of any rank was not finite: the optimiser's order to do nothing"""
        self._notices = [_Read(torch.zeros(2, device=device))] * 2
        """ranks that were asked to stop, and ranks that could not write, when each of the last two steps was
        made"""
        self._keys: dict[int, list[str]] = {}
        """names of this rank's images of each step since the last time the host looked"""
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self.observe)

    def observe(self, value: Tensor) -> None:
        """Take note of a loss, or of a gradient on its way to its parameter."""
        # 0 · inf and 0 · NaN are NaN, and NaN stays in a sum: one addition and no comparison.
        self._times_zero.add_(value.detach().sum().to(self._times_zero.dtype), alpha=0)

    def agree(
        self, step: int, keys: tuple[str, ...], stop_requested: bool = False, write_failed: bool = False
    ) -> None:
        """Between a backward pass and the optimiser. step: from 0; keys: names of this rank's images;
        stop_requested: whether this rank is asked to save and stop after the step; write_failed: whether it
        could not write its part of a checkpoint."""
        self._keys.setdefault(step, []).extend(keys)
        bad = self._times_zero.isnan()
        self._first_bad.copy_(torch.where((self._first_bad == 0) & bad, step + 1, self._first_bad))
        notices = self.stop.new_tensor([stop_requested, write_failed])
        everywhere = comm.sum_all(torch.cat([bad.to(notices).view(1), notices]))
        self.stop.copy_(everywhere[0] > 0)
        self._notices = [self._notices[1], _Read(everywhere[1:])]

    def stop_requested(self) -> bool:
        """Whether any rank was asked to stop when the last step was made: the same on every rank. On a GPU
        the step before, for whose number the host need not wait."""
        return bool(self._noticed()[0])

    def write_failed(self) -> bool:
        """Whether any rank had failed to write a checkpoint then: the same on every rank."""
        return bool(self._noticed()[1])

    def _noticed(self) -> list[float]:
        before, last = self._notices
        return (before if self.stop.is_cuda else last).values()

    def require_finite(self) -> None:
        """Raise RunError on every rank if anything was not finite, with the first step and its images."""
        if self.stop.item():
            ours = int(self._first_bad)
            of_ranks = comm.from_every_rank((ours, self._keys.get(ours - 1, [])))
            first = min(step for step, _ in of_ranks if step)
            images = ", ".join(key for step, keys in of_ranks if step == first for key in keys)
            raise RunError(
                f"loss or gradient of step {first} is not finite, with these images: {images}",
                None,
                "it changed no weight; lower optimizer.lr (and give another name=), or look at the images",
            )
        self._keys.clear()


class _Read:
    """Numbers on their way to the host."""

    def __init__(self, numbers: Tensor):
        self._numbers = numbers.to("cpu", non_blocking=True)
        on_gpu = numbers.is_cuda and torch.cuda.is_available()
        self._arrived = torch.cuda.current_stream().record_event() if on_gpu else None

    def values(self) -> list[float]:
        if self._arrived:
            self._arrived.synchronize()
        return self._numbers.tolist()
