"""The sections of an experiment's YAML, one model each, one sentence per field.

Every field but `name` and `data.train` has a default: the number of the SPML release on Pascal VOC 2012 with
scribbles where it serves everybody, else what a first training of one's own images needs, which the sentence
then says. The default of a field that is added later is what its absence meant before, so that older files
keep their meaning; where that cannot be, and for names that go, see `spml_dist.config.migrations`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spml_dist.config import checks
from spml_dist.config.labeling_models import CamConfig, ClassifierConfig, LabelingConfig
from spml_dist.config.method_models import BankConfig, LossConfig, RelationsConfig, SegmentsConfig
from spml_dist.config.strict import ClassId, Count, PathOrUrl, Probability, Section


class DataConfig(Section):
    train: PathOrUrl = Field(
        description="Folder or address of the packed training split (manifest.json and tars)."
    )
    val: PathOrUrl | None = Field(
        default=None, description="Folder or address of the packed validation split; null if there is none."
    )
    test: PathOrUrl | None = Field(
        default=None, description="Folder or address of the packed test split; null if there is none."
    )


class ModelConfig(Section):
    backbone: str = Field(
        default="resnet101s",
        min_length=1,
        description="Name of a timm model that can give feature maps; the release's has a deep stem.",
    )
    weights: PathOrUrl | None = Field(
        default=None, description="File of backbone weights to start from; null for none."
    )
    pretrained: bool = Field(
        default=True,
        description="Whether to start from weights learned on ImageNet: timm's own where its hub can be "
        "reached, else those of an installed package (extra `weights`).",
    )
    output_stride: Annotated[int, Field(ge=4)] | None = Field(
        default=8,
        description="Image pixels per pixel of the backbone's last map: 8, 16 or 32 for convolutions, which "
        "dilate instead of striding further; the patch for a transformer; null for the backbone's own.",
    )
    feature_level: int = Field(
        default=-1,
        ge=-1,
        description="Which of the backbone's feature maps feeds the head, counted from 0; -1 is the last.",
    )
    head: Literal["deeplab", "pspnet"] = Field(
        default="deeplab",
        description="Head that turns the feature map into embeddings: parallel dilated convolutions, or a "
        "pyramid of averages as for DensePose.",
    )
    dilations: tuple[Count, ...] = Field(
        default=(6, 12, 18, 24),
        description="Dilation of each of the deeplab head's parallel 3×3 convolutions; empty with pspnet.",
    )
    embedding_dim: int = Field(default=64, ge=2, description="Dimensions of a pixel's unit embedding.")
    checkpointing: bool = Field(
        default=False,
        description="Whether a transformer's blocks are computed again in the backward pass instead of kept, "
        "which takes a fraction of the memory and a third more time.",
    )
    frozen: tuple[str, ...] = Field(
        default=(),
        description="Prefixes of backbone parameters that are not trained; batch norms still follow data. "
        "None by default, as names differ between backbones; the release freezes [conv1, bn1, layer1].",
    )
    embedding: PathOrUrl | None = Field(
        default=None,
        description="Folder of an exported network whose backbone and head are taken, in the place of other "
        "weights, and never change: only a classifier is trained on them, as `spml-dist classify` does; null "
        "trains all.",
    )
    norm_momentum: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of a step in the running statistics of the backbone's batch norms: 0.1 serves "
        "every backbone; the release has 0.0003, for pre-trained statistics.",
    )
    classifier_dropout: float = Field(
        default=0.75, ge=0, lt=1, description="Dropout in front of the classifier's last layer."
    )
    classifier_detached: bool = Field(
        default=True,
        description="Whether the classifier sees a detached embedding; false lets its cross-entropy train "
        "the backbone too, which is better with masks of all pixels and worse with a few points.",
    )


class StreamConfig(Section):
    batch: int = Field(
        default=16,
        ge=1,
        description="Images of one optimiser step, over all workers; the paper has 12.",
    )
    crop: int = Field(default=512, ge=16, description="Side of the square training crop in pixels.")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(0.5, 1.5), description="Lowest and highest factor of the random scaling before the crop."
    )
    mirror: bool = Field(
        default=True, description="Whether a crop is mirrored left to right with probability one half."
    )
    mirror_swaps: tuple[tuple[ClassId, ClassId], ...] = Field(
        default=(),
        description="Pairs of class ids that change places in a mirrored crop, such as left and right hand.",
    )
    grey: Probability = Field(
        default=0.0,
        description="Probability that a crop loses its colours; 0.3 under the release's classifier.",
    )
    blur: Probability = Field(
        default=0.0,
        description="Probability that a crop is blurred, by a kernel of 5×5 pixels whose width is drawn; 0.5 "
        "under the release's classifier.",
    )
    window_shards: int = Field(
        default=16, ge=1, description="Number of shards whose samples are shuffled together."
    )
    loader_processes: int = Field(
        default=4,
        ge=0,
        description="Decoding processes of each worker; 0 decodes in the training process, which is enough "
        "for small crops on CPU cores.",
    )
    skip_corrupt: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a shard's samples that may be corrupt and are then left out; 0 stops the run "
        "at the first.",
    )
    retry_seconds: float = Field(
        default=60.0,
        ge=0,
        description="How long an address that does not answer is tried again before the run stops.",
    )
    cache: PathOrUrl | None = Field(
        default=None,
        description="Folder on every machine for the shards fetched from addresses; null is the machine's "
        "temporary folder.",
    )
    cache_gb: float = Field(
        default=50.0,
        gt=0,
        description="Size beyond which the longest unused of the fetched shards are removed.",
    )


class OptimizerConfig(Section):
    lr: float = Field(
        default=0.003,
        gt=0,
        description="Peak learning rate of the backbone's weights; the small networks that the shipped "
        "experiments train from scratch take 0.02.",
    )
    kind: Literal["sgd", "adamw"] = Field(
        default="sgd",
        description="The release's SGD, or AdamW, by which transformers are trained, at rates of about "
        "0.0001.",
    )
    momentum: float = Field(
        default=0.9, gt=0, lt=1, description="Momentum of SGD; of AdamW, that of its first moment."
    )
    second_momentum: float = Field(
        default=0.999, gt=0, lt=1, description="Momentum of AdamW's second moment; SGD has none."
    )
    weight_decay: float = Field(
        default=0.0005, ge=0, description="Weight decay; biases have none; AdamW takes about 0.05."
    )
    decay_norms: bool = Field(
        default=True,
        description="Whether weights of norms, and whatever else has one dimension, decay like others; false "
        "for transformers.",
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Learning rate of a block of the backbone over that of the block after it: 1 for all "
        "alike, about 0.75 for transformers with pretrained weights.",
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Norm above which a step's whole gradient is scaled down to it; null for no clipping.",
    )
    clip: Literal["together", "apart"] = Field(
        default="together",
        description="Whether clip_norm limits the gradient of all weights together, or that of backbone and "
        "head and that of the classifier apart, so that neither's size decides on the other's step.",
    )
    head_multiplier: float = Field(
        default=10.0, gt=0, description="Learning rate of head and classifier over the backbone's."
    )
    bias_multiplier: float = Field(
        default=2.0, gt=0, description="Learning rate of biases over that of the weights beside them."
    )


class ScheduleConfig(Section):
    steps: int = Field(
        default=2000,
        ge=1,
        description="Number of optimiser steps; 2000 serve a few hundred images, the release takes 30000 on "
        "VOC's 10,582 and 45000 on DensePose.",
    )
    policy: Literal["poly", "step"] = Field(
        default="poly",
        description="How the learning rate falls: (1 - step/steps) to a power, or to a tenth at each decay, "
        "a policy that the release has (golden item j_lr) and none of its experiments uses.",
    )
    power: Annotated[float, Field(gt=0)] | None = Field(
        default=0.9, description="Power of the poly policy; null with the step policy."
    )
    warmup: int = Field(
        default=100, ge=0, description="Steps over which the learning rate rises from a tenth."
    )
    decays: tuple[Count, ...] = Field(
        default=(),
        description="Steps at which the step policy divides the learning rate by ten; empty with poly.",
    )


class EngineConfig(Section):
    workers: Count | tuple[Count, Count] = Field(
        default=1,
        description="Number of training processes, which does not change what is computed, or the fewest and "
        "the most, such as [2, 8]: a training on Ray then goes on with fewer after a node is lost, and with "
        "more when there is room; one runs on any machine, the release had four GPUs.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where workers compute; auto takes GPUs if there are."
    )
    zero_stage: int = Field(
        default=0,
        ge=0,
        le=3,
        description="DeepSpeed ZeRO stage: what the workers split among themselves instead of repeating it.",
    )
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        default="float32",
        description="Number format of the network's computation; the loss is never below float32.",
    )
    channels_last: bool = Field(
        default=False,
        description="Whether convolutions' weights lie with their channels last, as images do in any case: "
        "for bfloat16 on a GPU.",
    )
    compile: bool = Field(
        default=False,
        description="Whether torch compiles backbone and head, minutes at a run's first step for faster ones "
        "after it; the log says if it cannot: without a compiler, or where workers share batch norms.",
    )
    tf32: Literal["off", "convolutions", "all"] = Field(
        default="convolutions",
        description="Which products of float32 a GPU makes in TF32, with three digits instead of seven and "
        "several times as fast: convolutions, as torch does by itself, or those of segments and loss too.",
    )
    deterministic: bool = Field(
        default=False,
        description="Whether a GPU repeats a run to the bit, by slower algorithms of torch and cuDNN; what "
        "has none is named in a warning.",
    )
    accumulation: int = Field(
        default=1, ge=1, description="Micro-batches whose gradients are summed into one optimiser step."
    )
    micro_batches: Literal["apart", "together"] = Field(
        default="apart",
        description="Whether each micro-batch is a mean of its own, or the sums of all are divided by the "
        "counts of the whole step, so that a pixel's weight does not depend on its companions.",
    )
    max_failures: int = Field(
        default=-1,
        ge=-1,
        description="How many failures of workers on Ray are followed by another start from the last "
        "checkpoint; -1 for any number, as long as each gets further than the one before.",
    )
    patience: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds that a step of several workers may take; after them every rank's stack goes to "
        "RUN/logs/latest, and the workers end and start again.",
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads of each worker; 0 divides the cores among the workers."
    )

    @property
    def fewest(self) -> int:
        """Workers that a training on Ray needs."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Workers that it takes where it can have them."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class CheckpointConfig(Section):
    every: int = Field(
        default=500,
        ge=1,
        description="Steps between checkpoints, which a crash may cost; the last step always has one.",
    )
    keep: int = Field(default=2, ge=1, description="Number of newest checkpoints to keep.")
    remote: str | None = Field(
        default=None,
        description="Address of a folder, such as s3://bucket/runs, to which each whole checkpoint is copied "
        "too, beside the steps; a run without a checkpoint of its own goes on from the newest there. Null "
        "for none.",
    )


class TrackingConfig(Section):
    uri: str = Field(
        default="sqlite:///runs/mlflow.db",
        min_length=1,
        description="MLflow tracking address: a database, which needs nothing that runs, or a server.",
    )
    experiment: str = Field(default="spml", min_length=1, description="Name of the MLflow experiment.")
    every: int = Field(default=10, ge=1, description="Steps between logged steps.")
    previews_every: int = Field(default=500, ge=1, description="Steps between previews.")
    previews: int = Field(default=4, ge=0, description="Number of images in a preview; 0 for none.")


class EvaluationConfig(Section):
    grid: tuple[Count, Count] = Field(
        default=(12, 12),
        description="Initial clusters of a whole image as rows and columns; 24 × 24 for DensePose.",
    )
    iterations: int = Field(default=10, ge=1, description="Iterations of spherical k-means.")
    neighbours: int = Field(default=20, ge=1, description="Number of nearest labelled segments that vote.")
    longer_side: Annotated[int, Field(ge=16)] | None = Field(
        default=None,
        description="Longer side in pixels to which images are resized for the network; null for native "
        "size, at which crops are trained; the release has 512 for VOC and 640 for DensePose.",
    )
    pictures: int = Field(default=16, ge=0, description="Number of images shown in the report.")


class Config(Section):
    """One experiment. Raises ConfigError for values that do not go together."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        max_length=200,
        description="Name of the run and of its folder, OUTPUT/NAME: at most 200 of A-Z, a-z, 0-9, '_', '-' "
        "and '.'.",
    )
    output: PathOrUrl = Field(default="runs", description="Folder of run folders.")
    seed: int = Field(default=235, ge=0, lt=2**32, description="Seed of everything random.")
    data: DataConfig = Field(description="Packed splits.")
    # A default section is one object for all experiments, which may share it because it is frozen.
    model: ModelConfig = Field(default=ModelConfig(), description="Backbone, head and classifier.")
    stream: StreamConfig = Field(default=StreamConfig(), description="Batches and augmentation.")
    segments: SegmentsConfig = Field(default=SegmentsConfig(), description="Clustering of a training crop.")
    relations: RelationsConfig = Field(
        default=RelationsConfig(), description="Which segments attract and which repel."
    )
    loss: LossConfig = Field(default=LossConfig(), description="How the terms become one number.")
    bank: BankConfig = Field(
        default=BankConfig(), description="Segments of earlier steps as further candidates."
    )
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="SGD with momentum.")
    schedule: ScheduleConfig = Field(
        default=ScheduleConfig(), description="Length of training and learning rate over it."
    )
    engine: EngineConfig = Field(default=EngineConfig(), description="Workers and how they compute.")
    checkpoint: CheckpointConfig = Field(
        default=CheckpointConfig(), description="When to save and how many to keep."
    )
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="What MLflow and the log show.")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="Reading labels out of a trained network."
    )
    cam: CamConfig = Field(
        default=CamConfig(), description="Seeds from image tags and boxes by class activation maps."
    )
    labeling: LabelingConfig = Field(
        default=LabelingConfig(), description="Pseudo-labels by random walk and by nearest segments."
    )
    classifier: ClassifierConfig = Field(
        default=ClassifierConfig(), description="The classifier that is trained on a finished embedding."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        checks.check(self)
        return self
