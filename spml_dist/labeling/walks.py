"""Labelers that spread scores over an image by a random walk along its embedding (SPML, appendix A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spml_dist.config.labeling_models import LabelingConfig
from spml_dist.labeling import random_walk
from spml_dist.labeling.cam_seeds import located_shares
from spml_dist.labeling.cams import CamSeeds
from spml_dist.labeling.grid_scores import GridScores, grid_scores
from spml_dist.labeling.labeler import is_tagged_alone, possible, with_labels
from spml_dist.labeling.network import TrainedSegmenter
from spml_dist.labeling.painting import painted
from spml_dist.labeling.windows import blended
from spml_dist.records import Sample


@dataclass(frozen=True)
class SoftmaxWalk:
    """Spreads the classifier's probabilities of the classes that an image may show (algorithm 1, step 4).

    A class that has boxes wins no pixel outside them, which the published method lets it."""

    network: TrainedSegmenter
    settings: LabelingConfig

    def __call__(self, sample: Sample) -> Sample:
        """The sample with `walk` among its kinds; as it is where nothing tells of its classes."""
        present = possible(sample, self.network.num_classes, self.network.background)
        if present is None or not present.any():
            return sample
        seen = look(self.network, sample.image, self.settings)
        there = torch.from_numpy(present).to(seen.probability.device)
        seeds = random_walk.softmax_seeds(seen.probability, there)
        classes = np.flatnonzero(present).tolist()
        return _spread_over(sample, seeds[classes], classes, seen, self.settings, "walk")


@dataclass(frozen=True)
class CamWalk:
    """Spreads the class activation maps of an image's tags (algorithm 2, steps 1 to 3)."""

    network: TrainedSegmenter
    settings: LabelingConfig
    cams: CamSeeds

    def __call__(self, sample: Sample) -> Sample:
        """The sample with `cam-walk` among its kinds; as it is unless tags are all that people said of it and
        some of them are located."""
        if not is_tagged_alone(sample):
            return sample
        classes = tuple(sorted(sample.tags or ()))
        shares, located = located_shares(self.cams.activations(sample.image, classes))
        background = self.network.background
        if (classes and not located.any()) or (not classes and background is None):
            return sample
        seen = look(self.network, sample.image, self.settings)
        # Row 0 is the background's, whatever its id, and only of classes that the image shows there are rows.
        rows = torch.arange(1, len(classes) + 1)
        maps = random_walk.cam_seeds(
            torch.from_numpy(shares), rows, len(classes) + 1, self.cams.settings.alpha
        )
        ids = [-1 if background is None else background, *classes]
        kept = sorted((label, row) for row, label in enumerate(ids) if label >= 0)
        grid = seen.probability.shape[1], seen.probability.shape[2]
        seeds = random_walk.resize(maps, grid)[[row for _, row in kept]]
        seeds = seeds.to(seen.probability.device)
        return _spread_over(sample, seeds, [label for label, _ in kept], seen, self.settings, "cam-walk")


def look(network: TrainedSegmenter, image: np.ndarray, settings: LabelingConfig) -> GridScores:
    """Embedding and probabilities of an image on the grid of its walk."""
    unmirrored = network.unmirrored() if settings.mirror else None
    return grid_scores(
        network(), image, network.num_classes, settings.stride, network.longer_side, unmirrored
    )


@torch.inference_mode()
def spread(seeds: Tensor, embedding: Tensor, settings: LabelingConfig) -> Tensor:
    """Seeds [m, h, w] after a walk along the embedding [V, C, h, w]; in windows where the grid is large."""

    def part(rows: slice, columns: slice) -> Tensor:
        return random_walk.walk_in_blocks(
            seeds[:, rows, columns],
            embedding[..., rows, columns],
            settings.memory_mb << 20,
            settings.steps,
            settings.concentration,
            settings.sharpness,
        )

    h, w = seeds.shape[1:]
    if settings.window is None or h * w <= settings.window**2:
        return part(slice(0, h), slice(0, w))
    return blended((h, w), settings.window, settings.overlap, part)


def _spread_over(
    sample: Sample,
    seeds: Tensor,
    classes: Sequence[int],
    seen: GridScores,
    settings: LabelingConfig,
    kind: str,
) -> Sample:
    walked = spread(seeds, seen.embedding, settings)
    labels, confidence = painted(walked, classes, sample.image.shape[:2], boxes=sample.boxes or ())
    return with_labels(sample, labels, confidence, kind, settings.min_confidence)
