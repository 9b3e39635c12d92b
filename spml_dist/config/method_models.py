"""The sections that are the method, from segments to labeling and classifier; one sentence per field.

Defaults are the numbers of the SPML release on Pascal VOC 2012 with scribbles; a sentence says where a
default is this project's own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spml_dist.config.strict import ClassId, Count, Section

Weight = Annotated[float, Field(ge=0, description="Factor of this relation in the loss; 0 leaves it out.")]
Concentration = Annotated[
    float,
    Field(
        gt=0,
        le=40,
        description="Concentration κ of the similarity exp(κ·cosine); the loss shifts it by a fixed κ, "
        "which underflows float32 beyond about 43.",
    ),
]
Storage = Literal["float32", "float16", "bfloat16"]
LocalFeatures = Annotated[
    bool,
    Field(
        description="Whether segments are compared by their embedding with local features beside it, or by "
        "the embedding alone."
    ),
]


class SegmentsConfig(Section):
    grid: tuple[Count, Count] = Field(
        default=(6, 6), description="Initial clusters of a crop as rows and columns; 12 × 12 for DensePose."
    )
    iterations: int = Field(default=10, ge=1, description="Iterations of spherical k-means.")
    colour: Literal["none", "cone", "gaussian"] = Field(
        default="none",
        description="Smoothing of the colours that stand beside embedding and coordinates: cone, the kernel "
        "that the release has for DensePose (configs/densepose_point.yaml, golden item m_color_features), "
        "or gaussian, which that kernel is meant to be; none leaves colours out, as on VOC.",
    )
    embedding_scale: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor of the unit embedding beside its local features in relations that use these; "
        "clustering takes it whole; 0.1 for DensePose.",
    )
    labels: Literal["nearest", "majority"] = Field(
        default="nearest",
        description="Which label a cell of 4×4 pixels has: that of its top left pixel, as in the release, or "
        "that of most of its labelled pixels; a thin scribble then labels every cell that it crosses.",
    )


# A class each, although most have the same fields: a file that gives a weight alone keeps the relation's own
# concentration.
class ImageSimilarityConfig(Section):
    weight: Weight = 0.1
    concentration: Concentration = 16.0
    local_features: LocalFeatures = True


class AnnotationConfig(Section):
    weight: Weight = 1.0
    concentration: Concentration = 6.0


class CooccurrenceConfig(Section):
    weight: Weight = 0.5
    concentration: Concentration = 12.0
    ignore_classes: tuple[ClassId, ...] = Field(
        default=(),
        description="Class ids that do not count as shared context, because nearly every image shows them; "
        "the background never counts.",
    )
    own_image: bool = Field(
        default=True,
        description="Whether the segments of a pixel's own image attract it, as published; false leaves them "
        "out where another image of the batch or the bank shares a tag.",
    )


class FeatureAffinityConfig(Section):
    weight: Weight = 0.0
    concentration: Concentration = 12.0
    scope: Literal["image", "batch", "global"] = Field(
        default="batch",
        description="Where the nearest labelled segments are sought: in the own image, segments without one "
        "being attracted by all as in the release; in the batch of all workers, those then taking no part, "
        "which is nearer to the paper; or also among the annotated rows of the bank.",
    )
    min_similarity: float = Field(
        default=0.95,
        ge=-1,
        le=1,
        description="Lowest cosine at which a labelled segment passes its class on.",
    )
    neighbours: int = Field(
        default=1,
        ge=1,
        description="Number of nearest labelled segments that vote on an unlabelled one's class.",
    )
    margin: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Lead of the winning class over the next, as a share of the votes, below which a segment "
        "stays unlabelled.",
    )
    local_features: LocalFeatures = False


class RelationsConfig(Section):
    image_similarity: ImageSimilarityConfig = Field(
        default=ImageSimilarityConfig(), description="Segments of one contour region of one image attract."
    )
    annotation: AnnotationConfig = Field(
        default=AnnotationConfig(), description="Segments annotated with one class attract."
    )
    cooccurrence: CooccurrenceConfig = Field(
        default=CooccurrenceConfig(), description="Segments of images that share a tag attract."
    )
    feature_affinity: FeatureAffinityConfig = Field(
        default=FeatureAffinityConfig(),
        description="Segments of one class attract, unlabelled ones having that of the nearest labelled; "
        "off on VOC, weight 0.5 in the paper's DensePose.",
    )


class LossConfig(Section):
    cross_entropy: float = Field(
        default=1.0, ge=0, description="Factor of the classifier's cross-entropy; 0 leaves it out."
    )
    reduction: Literal["global", "per_rank"] = Field(
        default="global",
        description="Mean over the pixels of all workers (the same for any number of workers), or mean of "
        "the workers' own means as in the release (golden item g_relations_sharded).",
    )
    pixels_per_segment: int | None = Field(
        default=None,
        ge=1,
        description="At most so many pixels of each segment are contrasted, drawn anew each step and counted "
        "for all: the same loss on average in a fraction of the time; null contrasts all, as published.",
    )
    fused: bool = Field(
        default=True,
        description="Whether a GPU contrasts pixels and segments in kernels that store no similarity, "
        "instead of tile by tile as a CPU does; both give the same.",
    )
    products: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Number format of the vectors that are contrasted: bfloat16 halves the time of the "
        "products on a GPU or better, with three digits of each similarity; sums are float32 in any case.",
    )
    tagless: Literal["once", "reference"] = Field(
        default="once",
        description="How often a segment of an image known to hold no class stands among its own negatives: "
        "once, or twice as in the release, whose golden item g_relations_edge needs reference.",
    )


class BankConfig(Section):
    candidates: Literal["recent", "nearest+sampled", "nearest", "exact"] = Field(
        default="recent",
        description="Which rows of the bank join a step's candidates: those of the last steps, as in the "
        "paper; or, of a bank that spans the data set, the nearest to each segment and a weighted sample of "
        "all others, the nearest alone, or all.",
    )
    steps: int = Field(
        default=2,
        ge=0,
        description="Number of past steps whose segments stay with candidates recent; 0 for no bank.",
    )
    capacity: int = Field(
        default=200_000,
        ge=1,
        description="Rows that the bank holds over all workers with any other candidates; the oldest images "
        "go first; the default holds about 2,000 to 5,000 images whole.",
    )
    partitions: int = Field(
        default=64,
        ge=1,
        description="Number of fixed parts that the bank is split into; every worker owns whole ones.",
    )
    storage: Storage = Field(default="float32", description="Number format in which rows are kept.")
    warmup: int = Field(default=0, ge=0, description="Steps before the bank's rows join the candidates.")
    max_age: Count | None = Field(
        default=None,
        description="Steps after which a row no longer counts; null if it counts until it is replaced.",
    )
    queries: int = Field(
        default=256,
        ge=1,
        description="Most segments of a step that look up their nearest rows; where there are more, they "
        "take turns by a draw.",
    )
    neighbours: int = Field(
        default=16, ge=1, description="Rows of each kind that are looked up for a segment."
    )
    max_candidates: int = Field(
        default=1024, ge=1, description="Most of the nearest rows that one step uses, over the whole batch."
    )
    sampled: int = Field(
        default=1024,
        ge=1,
        description="Number n of further rows that nearest+sampled draws for a step, on average; it draws "
        "none of either kind, annotated or not, with a probability of about exp(-n/2).",
    )
    own_images: bool = Field(
        default=False,
        description="Whether remembered segments of the batch's own images, older copies of themselves, are "
        "candidates too.",
    )
    exact_rows: int = Field(
        default=10_000,
        ge=0,
        description="Rows of a worker, on average over all of them, up to which it searches exactly; above, "
        "it searches an inverted file.",
    )
    gpu_index: bool = Field(
        default=False,
        description="Whether a worker with a GPU searches an inverted file above exact_rows too, on the GPU, "
        "which takes FAISS with GPUs; else it compares all rows.",
    )
    min_recall: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Recall of the inverted file against exact search, below which it is searched more "
        "widely or trained again.",
    )
    encoder_momentum: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Share of its weights that a momentum encoder keeps at each step, whose vectors fill the "
        "bank; null if the network's own do.",
    )
