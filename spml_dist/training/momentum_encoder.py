"""The momentum encoder: a slowly moving copy of the network, whose vectors the bank remembers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spml_dist.config import Config
from spml_dist.errors import RunError
from spml_dist.model.segmenter import Segmenter


class MomentumEncoder:
    """θ_slow ← m·θ_slow + (1 - m)·θ over backbone and head (He et al., MoCo, section 3.2).

    Rows that were written many steps apart then come from nearly the same encoder. Weights are float32
    (float64 in a run in float64), because steps of 1 - m would vanish in 16 bits. They are the same on every
    rank without a collective, as the weights that they follow are: whole on every rank at ZeRO 0 to 2.

    Batch norms take the statistics of the images at hand, over all ranks, as those of the trained network do
    in every step: rows and the pixels that are compared with them are normalised alike, whereas running
    statistics lag behind, by thousands of steps where `model.norm_momentum` is small.
    """

    def __init__(self, network: Segmenter, momentum: float, precision: torch.dtype = torch.float32):
        """A copy of the network as it is, before an engine casts it or hooks into it.

        network: followed from then on; momentum: m; precision: bfloat16 for embeddings computed in that.
        """
        self._followed = network
        backbone, head = copy.deepcopy((network.backbone, network.head))
        self._copy = Segmenter(backbone, head, nn.Identity(), network.detached).requires_grad_(False).train()
        self._momentum = momentum
        self._autocast = precision == torch.bfloat16

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network; once after each optimiser step."""
        weights = dict(self._followed.named_parameters())
        for name, average in self._copy.named_parameters():
            average.lerp_(weights[name].to(average), 1 - self._momentum)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised crops -> [B, C, ⌈H/4⌉, ⌈W/4⌉], any norm; a collective."""
        weight = next(self._copy.parameters())
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._autocast):
            return self._copy.embed(images.to(weight.dtype, memory_format=torch.channels_last))

    def state(self) -> dict[str, Tensor]:
        """Weights by name; the running statistics are never read."""
        return {name: average.detach() for name, average in self._copy.named_parameters()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` returned."""
        for name, average in self._copy.named_parameters():
            average.copy_(state[name])


def build(
    config: Config, network: Segmenter, precision: torch.dtype, saved: Mapping[str, dict] | None
) -> MomentumEncoder | None:
    """The run's momentum encoder; None without `bank.encoder_momentum`.

    saved: a checkpoint's parts by name, "slow" among them if that run had one. Raises RunError where one of
    checkpoint and configuration has a momentum encoder and the other has none.
    """
    momentum = config.bank.encoder_momentum
    if saved is not None and ("slow" in saved) != (momentum is not None):
        has = "has one" if "slow" in saved else "has none"
        raise RunError(
            f"bank.encoder_momentum does not fit the run's checkpoint, which {has}",
            "null" if momentum is None else momentum,
            "give it as the run was started with, or another name= to start anew",
        )
    if momentum is None:
        return None
    encoder = MomentumEncoder(network, momentum, precision)
    if saved is not None:
        encoder.restore(saved["slow"])
    return encoder
