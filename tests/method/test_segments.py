"""From raw embeddings and label maps to pixels and segments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, normalize

from spml_dist.method.location import location
from spml_dist.method.segments import resize_labels, segment
from spml_dist.records import IGNORED, UNLABELLED
from tests.method.test_kmeans import reference

GRID, ITERATIONS = (2, 3), 4


def batch(seed: int, images: int = 3, h: int = 6, w: int = 7, ratio: int = 2, ids: int = 4):
    """raw [B, 5, h, w] and label maps [B, H, W] with every kind of label."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(images, 5, h, w, generator=generator, dtype=torch.float64)
    kinds = torch.tensor([0, 1, UNLABELLED, IGNORED], dtype=torch.uint8)
    size = (images, h * ratio, w * ratio)
    semantic = kinds[torch.randint(0, 4, size, generator=generator)]
    regions = torch.randint(0, ids, size, generator=generator, dtype=torch.int32)
    return raw.requires_grad_(), semantic, regions


def segmented(raw, semantic, regions):
    local = location(*raw.shape[2:], dtype=raw.dtype)[None]
    return segment(raw, semantic, regions, local=local, grid=GRID, iterations=ITERATIONS)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 3))
def test_segments_are_clusters_cut_by_label_and_region(seed, images, ratio):
    """Against a list of (image, cluster, semantic, region), pixel by pixel, sorted."""
    raw, semantic, regions = batch(seed, images, ratio=ratio)
    pixels, segments = segmented(raw, semantic, regions)
    u = normalize(raw.detach().movedim(1, -1), dim=-1)
    local = location(6, 7, dtype=raw.dtype)
    tuples = []
    for b in range(images):
        feature = normalize(torch.cat([u[b], local], dim=-1), dim=-1)
        small = semantic[b, ::ratio, ::ratio]
        clusters = reference(feature, GRID, ITERATIONS, small != IGNORED)
        tuples += [
            (b, int(clusters[y, x]), int(small[y, x]), int(regions[b, y * ratio, x * ratio]))
            for y in range(6)
            for x in range(7)
            if small[y, x] != IGNORED
        ]
    names = sorted(set(tuples))
    assert pixels.segment.tolist() == [names.index(t) for t in tuples]
    image, _, label, region = zip(*tuples, strict=True)
    assert (pixels.image.tolist(), pixels.semantic.tolist(), pixels.region.tolist()) == (
        list(image),
        list(label),
        list(region),
    )
    named = zip(segments.image.tolist(), segments.semantic.tolist(), segments.region.tolist(), strict=True)
    assert list(named) == [(b, s, r) for b, _, s, r in names]


def test_every_segment_is_pure_and_has_members():
    pixels, segments = segmented(*batch(0))
    for name in ("semantic", "region", "image"):
        assert torch.equal(getattr(segments, name)[pixels.segment], getattr(pixels, name))
    assert torch.equal(pixels.segment.unique(), torch.arange(len(segments)))


def test_box_and_area_are_those_of_the_members():
    raw, semantic, regions = batch(8)
    pixels, segments = segmented(raw, semantic, regions)
    place = (semantic[:, ::2, ::2] != IGNORED).nonzero()[:, 1:]
    for s in range(len(segments)):
        y, x = place[pixels.segment == s].T
        box = torch.tensor([y.min() / 6, x.min() / 7, (y.max() + 1) / 6, (x.max() + 1) / 7])
        torch.testing.assert_close(segments.box[s], box)
        assert segments.area[s] == pytest.approx(len(y) / (6 * 7))
    assert not segments.box.requires_grad and not segments.area.requires_grad


def test_vectors_are_unit_and_prototypes_are_sums_of_members():
    raw, semantic, regions = batch(1)
    pixels, segments = segmented(raw, semantic, regions)
    kept = semantic[:, ::2, ::2] != IGNORED
    u = normalize(raw.movedim(1, -1), dim=-1)
    torch.testing.assert_close(pixels.embedding, u[kept])
    feature = normalize(torch.cat([u, location(6, 7, dtype=raw.dtype).expand(3, -1, -1, -1)], dim=-1), dim=-1)
    torch.testing.assert_close(pixels.feature, feature[kept])
    for s in range(len(segments)):
        mine = pixels.segment == s
        torch.testing.assert_close(segments.prototype[s], normalize(pixels.embedding[mine].sum(0), dim=0))
        torch.testing.assert_close(
            segments.prototype_feature[s], normalize(pixels.feature[mine].sum(0), dim=0)
        )


def test_a_scaled_embedding_changes_the_features_after_clustering_and_nothing_else():
    raw, semantic, regions = batch(7)
    local = location(6, 7, dtype=raw.dtype)[None]
    (a, sa), (b, sb) = (
        segment(
            raw,
            semantic,
            regions,
            local=local,
            grid=GRID,
            iterations=ITERATIONS,
            embedding_scale=scale,
        )
        for scale in (1.0, 0.1)
    )
    for one, other in ((a, b), (sa, sb)):
        for name in vars(one):
            if "feature" not in name and getattr(one, name) is not None:
                assert torch.equal(getattr(one, name), getattr(other, name)), name
    kept = semantic[:, ::2, ::2] != IGNORED
    beside = torch.cat([0.1 * a.embedding, local.expand(3, -1, -1, -1)[kept]], dim=-1)
    torch.testing.assert_close(b.feature, normalize(beside, dim=-1))
    for s in range(len(sb)):
        mean = normalize(b.feature[b.segment == s].sum(0), dim=0)
        torch.testing.assert_close(sb.prototype_feature[s], mean)


def test_gradient_reaches_every_valid_pixel_and_no_ignored_one():
    raw, semantic, regions = batch(2)
    _, segments = segmented(raw, semantic, regions)
    (segments.prototype * torch.arange(5.0)).sum().backward()
    kept = semantic[:, ::2, ::2] != IGNORED
    alone = raw.grad.movedim(1, -1).abs().sum(dim=-1)
    assert (alone[kept] > 0).all() and (alone[~kept] == 0).all()


def test_what_is_ignored_does_not_matter():
    raw, semantic, regions = batch(3)
    hidden = (semantic[:, ::2, ::2] == IGNORED)[:, None]
    other = torch.where(hidden, 7.0, raw)
    (a, sa), (b, sb) = segmented(raw, semantic, regions), segmented(other, semantic, regions)
    assert torch.equal(a.segment, b.segment) and torch.equal(sa.prototype, sb.prototype)


@pytest.mark.parametrize("images", [0, 2])
def test_no_valid_pixel_is_no_pixels_no_segments_and_no_error(images):
    raw, semantic, regions = batch(4, images)
    pixels, segments = segmented(raw, torch.full_like(semantic, IGNORED), regions)
    assert len(pixels.segment) == len(segments) == 0
    assert pixels.embedding.shape == (0, 5) and segments.prototype_feature.shape == (0, 7)
    assert segments.box.shape == (0, 4) and segments.area.shape == (0,)
    (pixels.embedding.sum() + segments.prototype.sum()).backward()
    assert (raw.grad == 0).all()


def test_an_image_without_valid_pixels_leaves_the_others_numbers_in_place():
    raw, semantic, regions = batch(5)
    semantic[1] = IGNORED
    pixels, segments = segmented(raw, semantic, regions)
    assert pixels.image.unique().tolist() == segments.image.unique().tolist() == [0, 2]


def test_region_ids_take_sixteen_bits():
    raw, semantic, regions = batch(6, images=2)
    semantic[semantic == IGNORED] = UNLABELLED
    regions[:, :6], regions[:, 6:] = 65535, 65534
    pixels, segments = segmented(raw, semantic, regions)
    assert set(segments.region.tolist()) == {65534, 65535}
    assert pixels.region[: 3 * 7].tolist() == [65535] * 21
    assert torch.equal(segments.region[pixels.segment], pixels.region)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_are_resized_to_the_nearest_by_floor(dtype):
    """index = floor(i·in/out), the ratio rounded to float32 as torch has it: at most one beside the exact."""
    for n in range(1, 130):
        row = torch.arange(n).to(dtype).reshape(1, 1, n)
        for m in (1, 2, 3, n // 4 + 1, 33, 48, 129, 2 * n, 513):
            ours = resize_labels(row, (1, m))
            assert torch.equal(ours.float(), interpolate(row[None].float(), size=(1, m), mode="nearest")[0])
            assert (ours[0, 0] - torch.arange(m) * n // m).abs().max() <= 1
            assert torch.equal(resize_labels(row.mT, (m, 1)), ours.mT)


def test_resized_labels_keep_batch_and_type():
    labels = torch.from_numpy(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    assert resize_labels(labels, (2, 2)).tolist() == [[[0, 2], [4, 6]], [[12, 14], [16, 18]]]
    assert resize_labels(labels, (2, 2)).dtype == torch.int64
    assert resize_labels(labels[:0], (5, 2)).shape == (0, 5, 2)
