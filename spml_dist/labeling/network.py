"""Exported networks, as processes that label take them: by their folder, each loaded once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from spml_dist.config import Config
from spml_dist.inference.device import resolve_device
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter
from spml_dist.run_folder import MODEL_WEIGHTS, RunFolder


@dataclass(frozen=True)
class TrainedSegmenter:
    """A run's segmenter and how it looks at images. It pickles; a process loads it when it is called."""

    folder: Path
    """of the export"""
    digest: str
    """of its weights: a process keeps no network of an earlier training"""
    device: str
    num_classes: int
    background: int | None
    longer_side: int | None
    """pixels to which an image's longer side is scaled first; None = the image's own size"""
    grid: tuple[int, int]
    """initial clusters of an image, as rows and columns"""
    iterations: int
    """of k-means"""
    mirror_swaps: tuple[tuple[int, int], ...]
    """pairs of classes that change places in a mirror"""

    def __call__(self) -> Segmenter:
        return _segmenter(self.folder, self.device, self.digest)

    def unmirrored(self) -> torch.Tensor:
        """[K] int64: for each class the one that a mirrored image shows in its place."""
        order = torch.arange(self.num_classes)
        for one, other in self.mirror_swaps:
            order[[one, other]] = order[[other, one]]
        return order


def trained_segmenter(run: Path, config: Config, info: dict[str, Any]) -> TrainedSegmenter:
    """The segmenter of a run, of which config.yaml and model.json are read."""
    folder = RunFolder(run.resolve()).export
    evaluation = config.evaluation
    return TrainedSegmenter(
        folder=folder,
        digest=digest(folder),
        device=resolve_device(config.engine.device),
        num_classes=len(info["classes"]),
        background=info["background"],
        longer_side=evaluation.longer_side,
        grid=evaluation.grid,
        iterations=evaluation.iterations,
        mirror_swaps=config.stream.mirror_swaps,
    )


def digest(folder: Path) -> str:
    """sha256 of the weights of an export."""
    return hashlib.sha256((folder / MODEL_WEIGHTS).read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _segmenter(folder: Path, device: str, digest: str) -> Segmenter:
    return export.load(folder)[0].to(device)
