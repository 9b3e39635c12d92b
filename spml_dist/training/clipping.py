"""Norms of a gradient's two parts, encoder and classifier, and clipping of each by its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.config.models import OptimizerConfig

PARTS = ("encoder", "classifier")
"""backbone and head, which make the embedding; what reads classes from it"""


def is_classifier(parameter: str) -> bool:
    """Whether a parameter of that name belongs to the classifier, of either network."""
    return not parameter.startswith(("backbone.", "head."))


class Clipping:
    """Measures the gradient of every step, and with `optimizer.clip: apart` scales its parts.

    Nothing waits for the device but `report`. Clipping of everything together is left to the engine, which
    clips after the gradient was measured.
    """

    def __init__(self, settings: OptimizerConfig, device: torch.device):
        self._limit, self._apart = settings.clip_norm, settings.clip == "apart"
        self._norms = torch.zeros(len(PARTS), dtype=torch.float64, device=device)
        self._clipped = torch.zeros(len(PARTS), dtype=torch.float64, device=device)
        """steps since the last report in which a part was clipped"""
        self._steps = 0

    @torch.no_grad()
    def apply(self, encoder: Sequence[Tensor], classifier: Sequence[Tensor], divided: bool) -> None:
        """Between the mean of the gradients over the ranks and the optimiser's step.

        encoder, classifier: the gradients, of any shapes, or this rank's share of them, scaled in place;
        divided: whether they are a share, which makes this a collective.
        """
        parts = (encoder, classifier)
        squares = torch.stack([_square(gradients, self._norms) for gradients in parts])
        if divided:
            squares = comm.sum_all(squares)
        self._norms = squares.sqrt()
        self._steps += 1
        if self._limit is None:
            return
        limited = self._norms if self._apart else squares.sum().sqrt().expand(len(PARTS))
        self._clipped += limited > self._limit
        if self._apart:
            # As torch clips: 1e-6 keeps a gradient of zero from dividing by it.
            factors = (self._limit / (self._norms + 1e-6)).clamp(max=1)
            for factor, gradients in zip(factors, parts, strict=True):
                for gradient in gradients:
                    gradient.mul_(factor)

    def report(self) -> dict[str, float]:
        """Norm of each part's gradient in the last step, before it was clipped, and the share of the steps
        since the last report in which it was; the same on every rank."""
        norms, clipped = self._norms.tolist(), self._clipped.tolist()
        facts = {f"gradient/{part}": norm for part, norm in zip(PARTS, norms, strict=True)}
        if self._limit is not None:
            steps = max(self._steps, 1)
            facts |= {f"clipped/{part}": count / steps for part, count in zip(PARTS, clipped, strict=True)}
        self._clipped, self._steps = torch.zeros_like(self._clipped), 0
        return facts


def divided_by_part(gradients: Iterable[tuple[bool, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """(whether it is the classifier's, gradient) → the encoder's, the classifier's."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for of_classifier, gradient in gradients:
        parts[of_classifier].append(gradient)
    return parts


def _square(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    """Squared norm of all together, float64: parts of a gradient add up alike however they are divided."""
    if not gradients:
        return like.new_zeros(())
    norms = [torch.linalg.vector_norm(gradient, dtype=_wide(gradient)) for gradient in gradients]
    return torch.stack(norms).to(like).square().sum()


def _wide(gradient: Tensor) -> torch.dtype:
    return torch.promote_types(gradient.dtype, torch.float32)
