"""Low-level image similarity: contour regions, each image by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.relations.image_similarity import blocks
from spml_dist.records import Pixels, Segments

# an image is a list of segments, a segment a pair (region, pixels)
segmentations = st.lists(
    st.lists(st.tuples(st.sampled_from([0, 3, 255, 65535]), st.integers(1, 3)), max_size=5), max_size=4
)


def records(images):
    """Pixels and segments of such images; images without segments had only ignored pixels."""
    region, image, sizes = [], [], []
    for number, segments in enumerate(images):
        for of_region, size in segments:
            region, image, sizes = [*region, of_region], [*image, number], [*sizes, size]
    region, image, sizes = (torch.tensor(v, dtype=torch.int64) for v in (region, image, sizes))
    segment = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    # row-major order mixes the segments of an image
    order = torch.randperm(len(segment), generator=torch.Generator().manual_seed(len(segment)))
    segment = segment[order][torch.sort(image[segment[order]], stable=True).indices]
    n, p = len(segment), len(sizes)
    pixels = Pixels(
        torch.zeros(n, 2),
        torch.zeros(n, 4),
        torch.zeros_like(segment),
        region[segment],
        segment,
        image[segment],
    )
    facts = torch.zeros_like(region), region, image, torch.zeros(p, 4), torch.zeros(p)
    return pixels, Segments(torch.zeros(p, 2), torch.zeros(p, 4), *facts)


@settings(deadline=None)
@given(segmentations)
def test_regions_attract_their_own_and_repel_the_image_s_others(images):
    pixels, segments = records(images)
    ours = blocks(pixels, segments, 16.0, 2.0)
    assert len(ours) == sum(bool(image) for image in images)
    seen = []
    for block in ours:
        (relation,), (scale,) = block.relations, block.scale
        rows, columns = (range(part.start, part.stop) for part in (block.rows, block.columns))
        assert scale == pytest.approx(1 / (len(rows) * 2.0))
        assert (relation.concentration, relation.own_repels) == (16.0, False)
        number = int(pixels.image[rows[0]])
        assert {int(pixels.image[i]) for i in rows} == {int(segments.image[t]) for t in columns} == {number}
        assert list(columns) == [t for t in range(len(segments)) if segments.image[t] == number]
        for place, i in enumerate(rows):
            group = int(relation.group[place])
            for column, t in enumerate(columns):
                same = bool(pixels.region[i] == segments.region[t])
                assert bool(relation.attract[group, column]) == same
                assert bool(relation.repel[group, column]) != same
        seen += rows
    assert seen == list(range(len(pixels.image)))


def test_the_number_of_images_may_be_a_tensor_and_count_more_than_ours():
    pixels, segments = records([[(1, 2), (2, 1)]])
    (block,) = blocks(pixels, segments, 16.0, torch.tensor(4.0))
    assert float(block.scale[0]) == pytest.approx(1 / 12)
