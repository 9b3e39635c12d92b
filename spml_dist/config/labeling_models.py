"""The sections of what a trained network makes of weak labels: seeds, labels of all pixels, a classifier.

Defaults are the numbers of the paper's appendix and of the release; a sentence says where one is this
project's own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spml_dist.config.strict import Probability, Section

Threshold = Annotated[float, Field(gt=0, le=1)]


class CamConfig(Section):
    steps: int = Field(
        default=1000,
        ge=1,
        description="Number of optimiser steps of the classifier of image tags; 1000 serve a few hundred "
        "images, configs/voc12_tag.yaml takes 4000.",
    )
    lr: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Learning rate of the classifier of image tags, whose loss is a mean over the classes "
        "and has a small gradient: 0.1 with SGD; null for optimizer.lr.",
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.5, 1.0, 1.5, 2.0),
        min_length=1,
        description="Factors of the image's size at which its maps are computed and summed.",
    )
    mirror: bool = Field(default=True, description="Whether maps of the mirrored image are summed too.")
    longer_side: Annotated[int, Field(ge=16)] | None = Field(
        default=1024,
        description="Longer side in pixels to which larger images are reduced before the factors apply; "
        "null for no limit but the 4 million pixels of any view.",
    )
    alpha: float = Field(
        default=6.0, gt=0, description="Exponent α of the background's score (1 - the strongest map)^α."
    )
    foreground: Threshold = Field(
        default=0.3,
        description="Lowest value of a class's map, over its maximum in the image, that labels a pixel; the "
        "paper has 0.2 for this and the background.",
    )
    background: Threshold = Field(
        default=0.3,
        description="Lowest score of the background that labels a pixel; the stronger wins where both do. "
        "With 0.2 here and for the foreground no pixel stays unlabelled, since max(m, (1 - m)^6) > 0.22.",
    )
    box: Threshold = Field(
        default=0.5,
        description="Lowest value of a class's map, stretched to 0..1 inside a box, that labels a pixel.",
    )


class LabelingConfig(Section):
    steps: int = Field(
        default=64,
        ge=0,
        description="Steps of the random walk, products with the transition; the release squares it 6 times.",
    )
    stride: int = Field(
        default=8, ge=1, description="Image pixels per cell, along each side, of the grid that is walked on."
    )
    concentration: float = Field(
        default=5.0,
        gt=0,
        le=40,
        description="Concentration γ of the walk's affinity exp(γ·(cosine - 1)).",
    )
    sharpness: float = Field(
        default=20.0, gt=0, description="Exponent β of affinities in the walk's transition."
    )
    mirror: bool = Field(
        default=True, description="Whether the mirrored image is looked at too, and the two averaged."
    )
    window: Annotated[int, Field(ge=8)] | None = Field(
        default=64,
        description="Side in cells of the windows in which an image of more cells than window² walks; null "
        "walks any image whole, which takes time with the square of its cells.",
    )
    overlap: int = Field(
        default=16, ge=0, description="Cells that neighbouring windows share; at most half a window."
    )
    memory_mb: int = Field(
        default=512,
        ge=1,
        description="Memory of a walk's transition, in MiB, beyond which it is computed in blocks at every "
        "step instead of once.",
    )
    neighbours: int = Field(
        default=20, ge=1, description="Number of nearest labelled segments that vote on a segment."
    )
    index_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.5, 1.0, 1.5),
        min_length=1,
        description="Factors of an image's size at which its labelled segments are remembered.",
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.5, 1.0, 1.5, 2.0),
        min_length=1,
        description="Factors of an image's size at which its segments ask their neighbours.",
    )
    floor: float = Field(
        default=0.15,
        gt=0,
        le=1,
        description="Lowest maximum that a class's share of votes is divided by in an image.",
    )
    min_confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Confidence below which a pixel stays unlabelled; 0 labels every pixel, as the paper.",
    )


class ClassifierConfig(Section):
    steps: int = Field(
        default=4000,
        ge=1,
        description="Number of optimiser steps; 4000 are the release's on VOC's 10,582 images, a few hundred "
        "serve as many images.",
    )
    batch: int = Field(default=16, ge=1, description="Images of one optimiser step, over all workers.")
    lr: float = Field(
        default=0.03,
        gt=0,
        description="Peak learning rate of the classifier's weights; the release's 0.003 times ten, its "
        "multiplier of them.",
    )
    warmup: int = Field(
        default=100, ge=0, description="Steps over which the learning rate rises from a tenth."
    )
    power: float = Field(
        default=0.9, gt=0, description="The learning rate falls by (1 - step/steps) to this power."
    )
    dropout: float = Field(
        default=0.65, ge=0, lt=1, description="Dropout in front of the classifier's last layer."
    )
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(0.5, 2.0), description="Lowest and highest factor of the random scaling before the crop."
    )
    grey: Probability = Field(default=0.3, description="Probability that a crop loses its colours.")
    blur: Probability = Field(
        default=0.5, description="Probability that a crop is blurred, as by stream.blur."
    )
