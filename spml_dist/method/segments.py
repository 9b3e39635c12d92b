"""From the network's output to pixels and segments: clusters ∩ contour regions ∩ labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spml_dist.method.extent import extent
from spml_dist.method.kmeans import cluster, unit
from spml_dist.method.location import location
from spml_dist.method.prototypes import prototypes
from spml_dist.records import IGNORED, Pixels, Segments


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of label maps [B, H, W] to [B, *size] int64, of any integer type.

    index = floor(i·in/out) as torch's `interpolate` rounds it (the ratio in float32), which is what the
    published method uses: for about one pair of sizes in a hundred an index differs from the exact one.
    """
    rows, columns = (
        interpolate(torch.arange(before, device=labels.device).float()[None, None], size=after)[0, 0].long()
        for before, after in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns].long()


def prototypes_by(raw: Tensor, semantic: Tensor, index: Tensor, count: int) -> Tensor:
    """The vectors of known segments by another embedding of the same images: [count, C], unit.

    raw: [B, C, h, w] that embedding, any norm; semantic: [B, H, W] integers; index: [n] int64 in
    0..count-1, `Pixels.segment` of the embedding by which the segments were made.
    """
    valid = resize_labels(semantic, (raw.shape[2], raw.shape[3])) != IGNORED
    vectors = raw.movedim(1, -1).to(torch.promote_types(raw.dtype, torch.float32))
    return prototypes(unit(vectors[valid]), index, count)


def segment(
    embedding: Tensor,
    labels: Tensor,
    regions: Tensor | None = None,
    *,
    grid: tuple[int, int] = (6, 6),
    iterations: int = 10,
    embedding_scale: float = 1.0,
    local: Tensor | None = None,
) -> tuple[Pixels, Segments]:
    """Segments of a batch (SPML, section 3.2): k-means on L2norm([u, local]), cut by region and label.

    embedding: [B, C, h, w] of the network, any norm; labels: [B, H, W] integers, 0..253 a class, 254
    unlabelled, 255 ignored; regions: [B, H, W] integers in 0..2^24-1, contour regions, or None for one an
    image; both are resized here to the embedding's grid. grid: initial clusters as rows and columns;
    iterations: of k-means; embedding_scale: factor of u beside the local features in the features that are
    returned; local: [B or 1, h, w, L] local features, or None for coordinates.

    Ignored pixels are removed before clustering. Segments are numbered by (image, cluster, label, region), so
    each is pure in label and region. Prototypes and features have gradients to the embedding.
    """
    b, _, h, w = embedding.shape
    embedding = unit(embedding.movedim(1, -1))
    local = location(h, w, embedding.device)[None] if local is None else local
    local = local.to(embedding).expand(b, -1, -1, -1)
    feature = unit(torch.cat([embedding, local], dim=-1))
    semantic = resize_labels(labels, (h, w))
    regions = torch.zeros_like(semantic) if regions is None else resize_labels(regions, (h, w))
    valid = semantic != IGNORED
    clusters = cluster(feature.detach(), grid, iterations, valid)
    if embedding_scale != 1:
        feature = unit(torch.cat([embedding_scale * embedding, local], dim=-1))

    # The host waits for the device once to learn how many pixels are valid, instead of at each mask.
    place = valid.flatten().nonzero()[:, 0]
    image, semantic, region = place // (h * w), semantic.flatten()[place], regions.flatten()[place]
    regions_span, clusters_span = 1 << 24, grid[0] * grid[1]
    # One integer a pixel, whose order is that of the segments: unique() numbers them and sorts them at once.
    code = ((image * clusters_span + clusters.flatten()[place]) * 256 + semantic) * regions_span + region
    codes, index = torch.unique(code, return_inverse=True)
    embedding, feature = embedding.flatten(0, 2)[place], feature.flatten(0, 2)[place]
    pixels = Pixels(embedding, feature, semantic, region, index, image)
    box, area = extent(valid, index, len(codes), place)
    segments = Segments(
        prototype=prototypes(embedding, index, len(codes)),
        prototype_feature=prototypes(feature, index, len(codes)),
        semantic=codes // regions_span % 256,
        region=codes % regions_span,
        image=codes // (regions_span * 256 * clusters_span),
        box=box,
        area=area,
    )
    return pixels, segments
