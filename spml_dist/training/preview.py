"""What the network sees and says during training, as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spml_dist.config import Config
from spml_dist.data.format.keys import image_id_of
from spml_dist.data.stream.augment import denormalise
from spml_dist.drawing import contact_sheet, overlay
from spml_dist.drawing.contact_sheet import Card, class_chips
from spml_dist.method.segments import resize_labels
from spml_dist.method.step import segments_of
from spml_dist.records import IGNORED, IMAGENET, Batch, Normalisation


@torch.no_grad()
def write(
    path: Path,
    raw: Tensor,
    logits: Tensor,
    batch: Batch,
    config: Config,
    classes: list[str],
    background: int | None,
    normalisation: Normalisation = IMAGENET,
) -> None:
    """Draw crop, weak labels, segments and the joint classifier's prediction of a batch's first images.

    raw, logits: [B, C, h, w] and [B, K, h, w], what the network gave for the batch; normalisation: of
    the batch's images.
    """
    count = min(len(batch), config.tracking.previews)
    size = batch.semantic.shape[1], batch.semantic.shape[2]
    prediction = interpolate(logits[:count].float(), size=size, mode="bilinear", align_corners=False).argmax(
        dim=1
    )
    segments = resize_labels(_segment_map(raw.detach(), batch, config), size).cpu().numpy()
    colours = overlay.palette(len(classes), background)
    cards, labels = [], set(range(len(classes)))
    for i in range(count):
        floats = denormalise(batch.image[i].cpu().numpy(), normalisation)
        image = (floats.clip(0, 1) * 255).astype(np.uint8)
        weak = batch.semantic[i].cpu().numpy()
        # Padding is nobody's prediction.
        predicted = np.where(weak == IGNORED, IGNORED, prediction[i].cpu().numpy())
        views = {
            "crop": image,
            "weak labels": overlay.overlay(image, weak, colours),
            "segments": overlay.outline(image, segments[i]),
            "prediction": overlay.overlay(image, predicted, colours),
        }
        cards.append(Card(image_id_of(batch.keys[i]), tuple(views.items())))
        labels |= set(np.unique(weak).tolist())
    legend = class_chips(sorted(labels), classes, colours)
    overlay.write_picture(path, contact_sheet.sheet(f"{config.name} · {path.stem}", cards, legend))


def _segment_map(raw: Tensor, batch: Batch, config: Config) -> Tensor:
    """Segment of each pixel of the embedding grid, -1 where ignored: [B, h, w]."""
    pixels, _ = segments_of(raw, batch, config)
    grid = torch.full((len(raw), *raw.shape[2:]), -1, dtype=torch.int64, device=raw.device)
    valid = resize_labels(batch.semantic, (raw.shape[2], raw.shape[3])) != IGNORED
    grid[valid] = pixels.segment
    return grid
