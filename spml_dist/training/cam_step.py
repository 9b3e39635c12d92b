"""One training step of the CAM classifier: its loss on the images' tags, and how well it predicts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.records import Batch


@dataclass(frozen=True)
class CamLosses:
    """What a (micro-)batch came to on this rank."""

    total: Tensor
    """scalar with gradient, ready for a mean of gradients over the ranks"""
    facts: Tensor
    """[5] float64, to be added up over the ranks: share of the loss, images with known tags, tags that
    were predicted rightly, tags that were predicted, tags"""
    segments: None = None
    """it leaves no segments in a bank"""


def losses(scores: Tensor, batch: Batch, background: int | None) -> CamLosses:
    """Multi-label soft margin over all classes but the background, which is never a tag.

    scores: [B, K]. Mean over the classes, and over the images of all ranks whose tags are known; the others
    take no part. A collective.
    """
    classes = [label for label in range(scores.shape[1]) if label != background]
    known, tags = batch.tags_known, batch.tags[:, classes]
    # 16 bits are too few for a sum over the images.
    wide = scores[:, classes].to(torch.promote_types(scores.dtype, torch.float32))
    of_image = binary_cross_entropy_with_logits(wide, tags.to(wide), reduction="none").mean(dim=1)
    count = comm.sum_all(known.sum()).clamp(min=1)
    # By `where`, not by a product: what is not finite in an image that takes no part would still count.
    share = torch.where(known, of_image, 0).sum() / count
    predicted, tags = (wide > 0) & known[:, None], tags & known[:, None]
    numbers = (share.detach(), known.sum(), (predicted & tags).sum(), predicted.sum(), tags.sum())
    facts = torch.stack([number.double() for number in numbers])
    return CamLosses(share * comm.world(), facts)  # the engine averages over the ranks; a sum was wanted


def summary(micro_batches: Sequence[CamLosses], config: Config) -> dict[str, float]:
    """Loss, and precision and recall of the step's tags, predicted where a score is above 0; a collective."""
    total = comm.sum_all(torch.stack([each.facts for each in micro_batches]).sum(dim=0))
    loss, images, right, predicted, tags = total.tolist()
    return {
        "loss": loss / len(micro_batches),
        "tags/precision": right / max(predicted, 1),
        "tags/recall": right / max(tags, 1),
        "tags/images": images,
    }
