"""The sections of an experiment's YAML, one model each, one sentence per field.

Every field is required: a file says everything, so that two runs differ in what their files show.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spml_dist.config import checks
from spml_dist.config.method_models import Bank, Cam, Loss, Relations, Segments
from spml_dist.config.strict import ClassId, Count, Place, Section


class Data(Section):
    train: Place = Field(
        description="Folder or address of the packed training split (manifest.json and tars)."
    )
    val: Place | None = Field(
        description="Folder or address of the packed validation split; null if there is none."
    )
    test: Place | None = Field(
        description="Folder or address of the packed test split; null if there is none."
    )


class Model(Section):
    backbone: str = Field(min_length=1, description="Name of a timm model that can give feature maps.")
    weights: Place | None = Field(description="File of backbone weights to start from; null for none.")
    pretrained: bool = Field(
        description="Whether to start from weights learned on ImageNet: timm's own where its hub can be "
        "reached, else those of an installed package (extra `weights`)."
    )
    output_stride: Annotated[int, Field(ge=4)] | None = Field(
        description="Image pixels per pixel of the backbone's last map: 8, 16 or 32 for convolutions, which "
        "dilate instead of striding further; the patch for a transformer; null for the backbone's own."
    )
    feature_level: int = Field(
        ge=-1,
        description="Which of the backbone's feature maps feeds the head, counted from 0; -1 is the last.",
    )
    head: Literal["deeplab", "pspnet"] = Field(
        description="Head that turns the feature map into embeddings: parallel dilated convolutions, or a "
        "pyramid of averages."
    )
    dilations: tuple[Count, ...] = Field(
        description="Dilation of each of the deeplab head's parallel 3×3 convolutions; empty with pspnet."
    )
    embedding_dim: int = Field(ge=2, description="Dimensions of a pixel's unit embedding.")
    frozen: tuple[str, ...] = Field(
        description="Prefixes of backbone parameters that are not trained; batch norms still follow data."
    )
    norm_momentum: float = Field(
        gt=0, le=1, description="Share of a step in the running statistics of the backbone's batch norms."
    )
    classifier_dropout: float = Field(
        ge=0, lt=1, description="Dropout in front of the classifier's last layer."
    )
    classifier_detached: bool = Field(
        description="Whether the classifier sees a detached embedding; false lets its cross-entropy train "
        "the backbone, which is the plain baseline."
    )


class Stream(Section):
    batch: int = Field(ge=1, description="Images of one optimiser step, over all workers.")
    crop: int = Field(ge=16, description="Side of the square training crop in pixels.")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="Lowest and highest factor of the random scaling before the crop."
    )
    mirror: bool = Field(description="Whether a crop is mirrored left to right with probability one half.")
    mirror_swaps: tuple[tuple[ClassId, ClassId], ...] = Field(
        description="Pairs of class ids that change places in a mirrored crop, such as left and right hand."
    )
    window_shards: int = Field(ge=1, description="Number of shards whose samples are shuffled together.")
    loader_processes: int = Field(
        ge=0, description="Decoding processes of each worker; 0 decodes in the training process."
    )
    skip_corrupt: float = Field(
        ge=0,
        le=1,
        description="Share of a shard's samples that may be corrupt and are then left out; 0 stops the run "
        "at the first.",
    )
    retry_seconds: float = Field(
        ge=0, description="How long an address that does not answer is tried again before the run stops."
    )
    cache: Place | None = Field(
        description="Folder on every machine for the shards fetched from addresses; null is the machine's "
        "temporary folder."
    )
    cache_gb: float = Field(
        gt=0, description="Size beyond which the longest unused of the fetched shards are removed."
    )


class Optimizer(Section):
    lr: float = Field(gt=0, description="Peak learning rate of the backbone's weights.")
    momentum: float = Field(gt=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(ge=0, description="Weight decay; biases have none.")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        description="Norm above which a step's whole gradient is scaled down to it; null for no clipping."
    )
    head_multiplier: float = Field(
        gt=0, description="Learning rate of head and classifier over the backbone's."
    )
    bias_multiplier: float = Field(
        gt=0, description="Learning rate of biases over that of the weights beside them."
    )


class Schedule(Section):
    steps: int = Field(ge=1, description="Number of optimiser steps.")
    policy: Literal["poly", "step"] = Field(
        description="How the learning rate falls: (1 - step/steps) to a power, or to a tenth at each decay."
    )
    power: Annotated[float, Field(gt=0)] | None = Field(
        description="Power of the poly policy; null with the step policy."
    )
    warmup: int = Field(ge=0, description="Steps over which the learning rate rises from a tenth.")
    decays: tuple[Count, ...] = Field(
        description="Steps at which the step policy divides the learning rate by ten; empty with poly."
    )


class Engine(Section):
    workers: int = Field(ge=1, description="Number of training processes.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        description="Where workers compute; auto takes GPUs if there are."
    )
    zero_stage: int = Field(
        ge=0,
        le=3,
        description="DeepSpeed ZeRO stage: what the workers split among themselves instead of repeating it.",
    )
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        description="Number format of the network's computation; the loss is never below float32."
    )
    accumulation: int = Field(
        ge=1, description="Micro-batches whose gradients are summed into one optimiser step."
    )
    threads: int = Field(
        ge=0, description="CPU threads of each worker; 0 divides the cores among the workers."
    )


class Checkpoint(Section):
    every: int = Field(ge=1, description="Steps between checkpoints; the last step always has one.")
    keep: int = Field(ge=1, description="Number of newest checkpoints to keep.")


class Tracking(Section):
    uri: str = Field(min_length=1, description="MLflow tracking address: a database or a server.")
    experiment: str = Field(min_length=1, description="Name of the MLflow experiment.")
    every: int = Field(ge=1, description="Steps between logged steps.")
    previews_every: int = Field(ge=1, description="Steps between previews.")
    previews: int = Field(ge=0, description="Number of images in a preview; 0 for none.")


class Evaluation(Section):
    grid: tuple[Count, Count] = Field(description="Initial clusters of a whole image as rows and columns.")
    iterations: int = Field(ge=1, description="Iterations of spherical k-means.")
    neighbours: int = Field(ge=1, description="Number of nearest labelled segments that vote.")
    longer_side: Annotated[int, Field(ge=16)] | None = Field(
        description="Longer side in pixels to which images are resized for the network; null for native size."
    )
    pictures: int = Field(ge=0, description="Number of images shown in the report.")


class Config(Section):
    """One experiment. Raises ConfigError for values that do not go together."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="Name of the run and of its folder: letters, digits, '_', '-' and '.'.",
    )
    output: Place = Field(description="Folder of run folders.")
    seed: int = Field(ge=0, lt=2**32, description="Seed of everything random.")
    data: Data = Field(description="Packed splits.")
    model: Model = Field(description="Backbone, head and classifier.")
    stream: Stream = Field(description="Batches and augmentation.")
    segments: Segments = Field(description="Clustering of a training crop.")
    relations: Relations = Field(description="Which segments attract and which repel.")
    loss: Loss = Field(description="How the terms become one number.")
    bank: Bank = Field(description="Segments of earlier steps as further candidates.")
    optimizer: Optimizer = Field(description="SGD with momentum.")
    schedule: Schedule = Field(description="Length of training and learning rate over it.")
    engine: Engine = Field(description="Workers and how they compute.")
    checkpoint: Checkpoint = Field(description="When to save and how many to keep.")
    tracking: Tracking = Field(description="What MLflow and the log are told.")
    evaluation: Evaluation = Field(description="Reading labels out of a trained network.")
    cam: Cam = Field(description="Seeds from image tags and boxes by class activation maps.")

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        checks.check(self)
        return self
