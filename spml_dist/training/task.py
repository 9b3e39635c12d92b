"""What a run trains: the segmenter, or the CAM classifier that makes seeds of tags and boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from spml_dist.config import Config
from spml_dist.config.models import ModelConfig
from spml_dist.method import step
from spml_dist.method.step import StepLosses
from spml_dist.model import cam as cam_model
from spml_dist.model import segmenter
from spml_dist.model.export import Network
from spml_dist.records import Batch, SegmentBank
from spml_dist.training import cam_step, preview
from spml_dist.training.cam_step import CamLosses
from spml_dist.training.step_summary import summary

Outputs = tuple[Tensor, Tensor]
"""what the network gives for a batch"""
Losses = TypeVar("Losses", StepLosses, CamLosses)
"""what a micro-batch came to"""


@dataclass(frozen=True)
class StepContext:
    """What the losses of a step depend on beside its batch and the network."""

    config: Config
    bank: SegmentBank
    background: int | None
    """class of what is no object"""
    step: int
    """counted from 0"""
    logged: bool
    """whether the step will be, so that it is worth measuring"""
    phase: Callable[[str], object]
    """is handed the name of each phase that has ended"""
    counts: Tensor | None = None
    """[4] as `step.step_counts`, where a step's micro-batches are divided by what they have together"""


@dataclass(frozen=True)
class Task(Generic[Losses]):
    """What the loop needs to know of a network."""

    network: Network
    """its name in model.json"""
    build: Callable[[ModelConfig, int, int], nn.Module]
    """(configuration, number of classes, seed) -> the network"""
    inputs: Callable[[Tensor, Batch, Config], tuple[Any, ...]]
    """(images in the network's number format, their batch) -> what the network is called with"""
    losses: Callable[[Outputs, Batch, StepContext], Losses]
    """what a micro-batch comes to; a collective"""
    summary: Callable[[Sequence[Losses], Config], dict[str, float]]
    """a logged step in numbers, `loss` among them; a collective"""
    preview: Callable[..., None] | None
    """draws a batch and its outputs, as `preview.write`"""


def dropout_seeds(seed: int, batch: Batch) -> list[int]:
    """A seed for each image from (seed, epoch, sample key)."""
    texts = (f"dropout {seed} {batch.epoch} {key}" for key in batch.keys)
    return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) for text in texts]


def _segmenter_losses(outputs: Outputs, batch: Batch, at: StepContext) -> StepLosses:
    raw, logits = outputs
    return step.losses(raw, logits, batch, at.bank, at.step, at.config, at.logged, at.phase, at.counts)


def _cam_losses(outputs: Outputs, batch: Batch, at: StepContext) -> CamLosses:
    _, scores = outputs
    return cam_step.losses(scores, batch, at.background)


SEGMENTER = Task[StepLosses](
    network="segmenter",
    build=segmenter.build,
    inputs=lambda images, batch, config: (images, dropout_seeds(config.seed, batch)),
    losses=_segmenter_losses,
    summary=summary,
    preview=preview.write,
)

CAM = Task[CamLosses](
    network="cam",
    build=cam_model.build,
    inputs=lambda images, batch, config: (images,),
    losses=_cam_losses,
    summary=cam_step.summary,
    preview=None,
)
