"""What a run trains: the segmenter, or the CAM classifier that makes seeds of tags and boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from spml_dist.config import Config
from spml_dist.config.models import ModelConfig
from spml_dist.method import step
from spml_dist.method.step import StepLosses
from spml_dist.model import cam as cam_model
from spml_dist.model import segmenter
from spml_dist.model.export import Network
from spml_dist.records import BankCandidates, Batch, Candidates
from spml_dist.train import cam_step, preview
from spml_dist.train.cam_step import CamLosses
from spml_dist.train.step_summary import summary

Outputs = tuple[Tensor, Tensor]
"""what the network gives for a batch"""
Part = StepLosses | CamLosses
"""what a micro-batch came to"""


@dataclass(frozen=True)
class Task:
    """What the loop needs to know of a network."""

    network: Network
    """its name in model.json"""
    build: Callable[[ModelConfig, int, int], nn.Module]
    """(configuration, number of classes, seed) -> the network"""
    inputs: Callable[[Tensor, Batch, Config], tuple]
    """(images in the network's number format, their batch) -> what the network is called with"""
    losses: Callable[[Outputs, Batch, Callable[[Candidates], BankCandidates], Config, int | None], Part]
    """(outputs, batch, what a bank has to say, configuration, background class)"""
    summary: Callable[[Sequence[Part], Config], dict[str, float]]
    """a logged step in numbers, `loss` among them; a collective"""
    preview: Callable[..., None] | None
    """draws a batch and its outputs, as `engine.preview.write`"""


def dropout_seeds(seed: int, batch: Batch) -> list[int]:
    """A seed for each image from (seed, epoch, sample key)."""
    texts = (f"dropout {seed} {batch.epoch} {key}" for key in batch.keys)
    return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) for text in texts]


SEGMENTER = Task(
    network="segmenter",
    build=segmenter.build,
    inputs=lambda images, batch, config: (images, dropout_seeds(config.seed, batch)),
    losses=lambda outputs, batch, recall, config, background: step.losses(*outputs, batch, recall, config),
    summary=summary,
    preview=preview.write,
)

CAM = Task(
    network="cam",
    build=cam_model.build,
    inputs=lambda images, batch, config: (images,),
    losses=lambda outputs, batch, recall, config, background: cam_step.losses(outputs[1], batch, background),
    summary=cam_step.summary,
    preview=None,
)
