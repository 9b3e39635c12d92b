"""The loss of SPML for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from spml_dist import comm
from spml_dist.config.method_models import LossConfig, RelationsConfig
from spml_dist.method.batch_segments import exchange
from spml_dist.method.cell_labels import majority_labels
from spml_dist.method.relational_loss import RelationalLoss, relational_loss
from spml_dist.method.segments import segment
from spml_dist.records import IGNORED, UNLABELLED, BankCandidates, BatchImages, BatchSegments, Products


class SPMLLoss(nn.Module):
    """Pixel-to-segment contrastive learning (SPML, ICLR 2021), all four relations or any of them:

        criterion = SPMLLoss()                              # the numbers of Pascal VOC with scribbles
        for images, labels, regions, tags in loader:
            output = criterion(network(images), labels, regions, tags)
            output.loss.backward()
            optimizer.step()

    Arguments are those of the configuration: `annotation_weight` is its `relations.annotation.weight`, a
    weight of 0 leaves a relation out, `grid`, `iterations` and `embedding_scale` are its `segments`,
    `reduction`, `tagless`, `pixels_per_segment`, `fused` and `products` its `loss` (configs/reference.yaml
    describes each). Raises pydantic's ValidationError, a ValueError, for a value that the configuration does
    not take.

    With torch.distributed the segments of all ranks are contrasted, and every method is a collective; the
    loss is made for a mean of the gradients over the ranks, as DistributedDataParallel takes it.
    """

    def __init__(
        self,
        *,
        image_similarity_weight: float = 0.1,
        image_similarity_concentration: float = 16.0,
        image_similarity_local_features: bool = True,
        annotation_weight: float = 1.0,
        annotation_concentration: float = 6.0,
        cooccurrence_weight: float = 0.5,
        cooccurrence_concentration: float = 12.0,
        cooccurrence_ignore_classes: Sequence[int] = (),
        cooccurrence_own_image: bool = True,
        feature_affinity_weight: float = 0.0,
        feature_affinity_concentration: float = 12.0,
        feature_affinity_scope: Literal["image", "batch", "global"] = "batch",
        feature_affinity_min_similarity: float = 0.95,
        feature_affinity_neighbours: int = 1,
        feature_affinity_margin: float = 0.0,
        feature_affinity_local_features: bool = False,
        grid: tuple[int, int] = (6, 6),
        iterations: int = 10,
        embedding_scale: float = 1.0,
        labels: Literal["nearest", "majority"] = "nearest",
        reduction: Literal["global", "per_rank"] = "global",
        tagless: Literal["once", "reference"] = "once",
        pixels_per_segment: int | None = None,
        fused: bool = True,
        products: Products = "float32",
        seed: int = 0,
        classes: int | None = None,
    ):
        """labels: which labelled pixel of a cell speaks for it, as `segments.labels` of the configuration;
        seed: of the pixels that are drawn where `pixels_per_segment` is given, anew in every call; classes:
        number of classes K; None: as many as the tags have columns, or every label below 254."""
        super().__init__()
        self.grid, self.iterations, self.embedding_scale = grid, iterations, embedding_scale
        self.labels = labels
        self.seed, self.calls = seed, 0
        self.classes = classes
        self.relations = RelationsConfig.model_validate(
            {
                "image_similarity": {
                    "weight": image_similarity_weight,
                    "concentration": image_similarity_concentration,
                    "local_features": image_similarity_local_features,
                },
                "annotation": {"weight": annotation_weight, "concentration": annotation_concentration},
                "cooccurrence": {
                    "weight": cooccurrence_weight,
                    "concentration": cooccurrence_concentration,
                    "ignore_classes": tuple(cooccurrence_ignore_classes),
                    "own_image": cooccurrence_own_image,
                },
                "feature_affinity": {
                    "weight": feature_affinity_weight,
                    "concentration": feature_affinity_concentration,
                    "scope": feature_affinity_scope,
                    "min_similarity": feature_affinity_min_similarity,
                    "neighbours": feature_affinity_neighbours,
                    "margin": feature_affinity_margin,
                    "local_features": feature_affinity_local_features,
                },
            }
        )
        self.loss = LossConfig.model_validate(
            {
                "cross_entropy": 0.0,
                "reduction": reduction,
                "tagless": tagless,
                "pixels_per_segment": pixels_per_segment,
                "fused": fused,
                "products": products,
            }
        )

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        regions: Tensor | None = None,
        tags: Tensor | None = None,
        tags_known: Tensor | None = None,
        candidates: BankCandidates | None = None,
    ) -> RelationalLoss:
        """The loss of a batch, its relations' values, and its segments.

        As `segments` and then `contrast`; candidates: a bank's, from elsewhere than this batch's segments.
        """
        return self.contrast(self.segments(embeddings, labels, regions, tags, tags_known), candidates)

    def segments(
        self,
        embeddings: Tensor,
        labels: Tensor,
        regions: Tensor | None = None,
        tags: Tensor | None = None,
        tags_known: Tensor | None = None,
        keys: Sequence[str] = (),
    ) -> BatchSegments:
        """The segments of a batch, whose `candidates` a bank takes.

        embeddings: [B, C, h, w] of this rank, any norm; labels: [B, H, W] integers, 0..K-1 a class, 254
        unlabelled, 255 ignored; regions: [B, H, W] integers, contour regions, or None for one an image;
        tags: [B, K] bool, classes known to be in each image, without the background; None: nothing known;
        tags_known: [B] bool, False for images of unknown tags, or None for tags that are all known; keys:
        names of the images, which a bank tells them by.
        Raises ValueError for sizes that do not fit each other, and for other labels than these.
        """
        if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) <= IGNORED):
            span = f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"labels are {span}: write 0 and above, 254 for unlabelled, 255 for ignored")
        images = self._images(embeddings, labels, tags, tags_known, keys)
        if self.labels == "majority":
            labels = majority_labels(labels, (embeddings.shape[2], embeddings.shape[3]))
        pixels, segments = segment(
            embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)),
            labels,
            regions,
            grid=self.grid,
            iterations=self.iterations,
            embedding_scale=self.embedding_scale,
        )
        return exchange(pixels, segments, images)

    def contrast(self, segments: BatchSegments, candidates: BankCandidates | None = None) -> RelationalLoss:
        """The loss of a batch by its segments. candidates: a bank's for them, or None for no bank."""
        self.calls += 1
        return relational_loss(segments, candidates, self.relations, self.loss, self.seed, self.calls)

    def _images(
        self,
        embeddings: Tensor,
        labels: Tensor,
        tags: Tensor | None,
        tags_known: Tensor | None,
        keys: Sequence[str],
    ) -> BatchImages:
        count, device = len(embeddings), embeddings.device
        if tags is None:
            classes = UNLABELLED if self.classes is None else self.classes
            tags, tags_known = torch.zeros(count, classes), torch.zeros(count)
        elif tags_known is None:
            tags_known = torch.ones(count)
        assert tags_known is not None
        for name, size in (
            ("labels", len(labels)),
            ("tags", len(tags)),
            ("tags_known", len(tags_known)),
            ("keys", len(keys) or count),
        ):
            if size != count:
                raise ValueError(f"{name} are of {size} images, the embeddings of {count}")
        if self.classes not in (None, tags.shape[1]):
            raise ValueError(f"tags have {tags.shape[1]} columns, and there are {self.classes} classes")
        counts = comm.gather_counts(count, device)
        return BatchImages(
            keys=tuple(keys),
            position=torch.arange(count, device=device) + sum(counts[: comm.rank()]),
            tags=tags.to(device).bool(),
            tags_known=tags_known.to(device).bool(),
            window=torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(count, 4),
        )
