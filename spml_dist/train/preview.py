"""What the network sees and says during training, as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from spml_dist.config import Config
from spml_dist.data.stream.augment import denormalise
from spml_dist.drawing import overlay
from spml_dist.method.segments import resize_labels
from spml_dist.method.step import segments_of
from spml_dist.records import IGNORED, IMAGENET, Batch, Normalisation


@torch.no_grad()
def write(
    path: Path,
    raw,
    logits,
    batch: Batch,
    config: Config,
    classes: list[str],
    background: int | None,
    normalisation: Normalisation = IMAGENET,
) -> None:
    """Crop, weak labels, segments and the joint classifier's prediction of the first images of a batch."""
    shown = min(len(batch), config.tracking.previews)
    size = tuple(batch.semantic.shape[1:])
    prediction = interpolate(logits[:shown].float(), size=size, mode="bilinear", align_corners=False).argmax(
        dim=1
    )
    segments = _segment_map(raw.detach(), batch, config)
    segments = resize_labels(segments, size).cpu().numpy()
    colours = overlay.palette(len(classes), background)
    rows = []
    for i in range(shown):
        image = denormalise(batch.image[i].cpu().numpy(), normalisation)
        image = (image.clip(0, 1) * 255).astype(np.uint8)
        weak = batch.semantic[i].cpu().numpy()
        predicted = np.where(weak == IGNORED, IGNORED, prediction[i].cpu().numpy())
        rows.append(
            [
                image,
                overlay.overlay(image, weak, colours),
                overlay.outline(image, segments[i]),
                overlay.overlay(image, predicted, colours),
            ]
        )
    overlay.write_picture(
        path, overlay.panel(rows, ("crop", "weak labels", "segments", "prediction"), classes, colours)
    )


def _segment_map(raw, batch: Batch, config: Config):
    """Segment of each pixel of the embedding grid, -1 where ignored: [B, h, w]."""
    pixels, _ = segments_of(raw, batch, config)
    grid = torch.full((len(raw), *raw.shape[2:]), -1, dtype=torch.int64, device=raw.device)
    valid = resize_labels(batch.semantic, tuple(raw.shape[2:])) != IGNORED
    grid[valid] = pixels.segment
    return grid
