"""The labeler that asks the nearest labelled segments of a collection (SPML paper, appendix A.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spml_dist.config.labeling_models import LabelingConfig
from spml_dist.inference import whole_image
from spml_dist.inference.neighbours import shares
from spml_dist.inference.read_outs import prototypes_of
from spml_dist.inference.whole_image import EmbeddedImage
from spml_dist.labeling.image_views import views
from spml_dist.labeling.labeler import possible, with_labels
from spml_dist.labeling.network import TrainedSegmenter
from spml_dist.labeling.painting import centres, painted, sampled
from spml_dist.labeling.rescaling import rescale
from spml_dist.labeling.segment_index import SegmentIndex
from spml_dist.model.segmenter import GRID_STRIDE
from spml_dist.records import Sample


@dataclass(frozen=True)
class NeighbourVotes:
    """Labels an image's segments by the votes of the nearest labelled ones, at several scales, plain and
    mirrored; votes are averaged over these, and each class's map is rescaled before the highest wins."""

    network: TrainedSegmenter
    settings: LabelingConfig
    index: SegmentIndex

    def __call__(self, sample: Sample) -> Sample:
        """The sample with `neighbours` among its kinds; as it is where nothing tells of its classes.

        Classes that the image cannot show win no pixel, nor do those that have boxes outside them (the
        release lets both); their votes make what does less sure.
        """
        network = self.network
        present = possible(sample, network.num_classes, network.background)
        if present is None or not present.any():
            return sample
        votes = self.votes(sample.image)
        classes = np.flatnonzero(present).tolist()
        scores = torch.from_numpy(rescale(votes, present, self.settings.floor))
        others = scores[~torch.from_numpy(present)].sum(dim=0)
        size = sample.image.shape[:2]
        labels, confidence = painted(scores[classes], classes, size, others, sample.boxes or ())
        return with_labels(sample, labels, confidence, "neighbours", self.settings.min_confidence)

    @torch.inference_mode()
    def votes(self, image: np.ndarray) -> np.ndarray:
        """Share of each class's votes, mean over the views, on a grid of cells of four pixels: [K, h, w]."""
        network, settings = self.network, self.settings
        grid = [-(-side // GRID_STRIDE) for side in image.shape[:2]]
        total = torch.zeros(network.num_classes, *grid)
        seen = views(network(), image, settings.scales, network.longer_side, settings.mirror)
        for count, (embedded, mirrored) in enumerate(seen, 1):
            cells = self._votes_of_cells(embedded)
            total += (_on_grid(cells, embedded, grid, mirrored, network) - total) / count
        return total.numpy()

    def _votes_of_cells(self, embedded: EmbeddedImage) -> np.ndarray:
        """[h, w, K] float32 shares of each cell of the image; without those of the padding."""
        segments = whole_image.segments(embedded, self.network.grid, self.network.iterations)
        queries, owner = prototypes_of(embedded, segments)
        of_segment = np.zeros((segments.max() + 1, self.network.num_classes), np.float32)
        near = self.index.labels_near(queries, self.settings.neighbours)
        of_segment[owner] = shares(near, self.network.num_classes)
        valid = embedded.geometry.valid
        return of_segment[segments[valid].reshape(valid.any(axis=1).sum(), -1)]


def _on_grid(
    cells: np.ndarray, embedded: EmbeddedImage, grid: list[int], mirrored: bool, network: TrainedSegmenter
) -> Tensor:
    """Votes of a view on the image's grid, mirrored back: [K, *grid]."""
    shape = embedded.geometry
    sides = [side / count for side, count in zip(shape.padded, shape.valid.shape, strict=True)]
    extent = cells.shape[0] * sides[0], cells.shape[1] * sides[1]
    y, x = (centres(slice(0, count), count, side) for count, side in zip(grid, shape.resized, strict=True))
    maps = torch.from_numpy(cells).movedim(-1, 0)[None]
    votes = sampled(maps, extent, y, x.flip(0) if mirrored else x)[0]
    return votes[network.unmirrored()] if mirrored else votes
