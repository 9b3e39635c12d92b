"""From the network's output to pixels and segments: clusters ∩ contour regions ∩ labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spml_dist.method.extent import extent
from spml_dist.method.kmeans import cluster, unit
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
    valid = resize_labels(semantic, raw.shape[2:]) != IGNORED
    vectors = raw.movedim(1, -1).to(torch.promote_types(raw.dtype, torch.float32))
    return prototypes(unit(vectors[valid]), index, count)


def segment(
    raw: Tensor,
    local: Tensor,
    semantic: Tensor,
    regions: Tensor,
    grid: tuple[int, int],
    iterations: int,
    embedding_scale: float = 1.0,
) -> tuple[Pixels, Segments]:
    """Segments of a batch (SPML, section 3.2): k-means on L2norm([u, local]), cut by region and label.

    raw: [B, C, h, w] the network's embedding, any norm; local: [B or 1, h, w, L]; semantic, regions:
    [B, H, W] integers, resized here to the grid. Ignored pixels (255) are removed before clustering.
    embedding_scale: factor of u beside the local features in the features that are returned.
    Segments are numbered by (image, cluster, semantic, region), so each is pure in label and region.
    """
    b, _, h, w = raw.shape
    embedding = unit(raw.movedim(1, -1))
    local = local.to(embedding).expand(b, -1, -1, -1)
    feature = unit(torch.cat([embedding, local], dim=-1))
    semantic, regions = resize_labels(semantic, (h, w)), resize_labels(regions, (h, w))
    valid = semantic != IGNORED
    clusters = cluster(feature.detach(), grid, iterations, valid)
    if embedding_scale != 1:
        feature = unit(torch.cat([embedding_scale * embedding, local], dim=-1))

    image = torch.arange(b, device=raw.device)[:, None, None].expand(b, h, w)[valid]
    semantic, region = semantic[valid], regions[valid]
    regions_span, clusters_span = 1 << 24, grid[0] * grid[1]
    code = ((image * clusters_span + clusters[valid]) * 256 + semantic) * regions_span + region
    codes, index = torch.unique(code, return_inverse=True)
    embedding, feature = embedding[valid], feature[valid]
    pixels = Pixels(embedding, feature, semantic, region, index, image)
    box, area = extent(valid, index, len(codes))
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
