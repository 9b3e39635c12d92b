"""Labels by the votes of the nearest labelled segments of a collection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spml_dist.config.labeling_models import LabelingConfig
from spml_dist.data.format.manifest import read_manifest
from spml_dist.errors import DataError
from spml_dist.inference.neighbours import shares
from spml_dist.labeling.labelled_parts import PackParts
from spml_dist.labeling.neighbour_votes import NeighbourVotes
from spml_dist.labeling.segment_index import LabelledSegments, segment_index
from spml_dist.records import UNLABELLED
from tests.inference.conftest import stripes

SETTINGS = LabelingConfig(neighbours=5, index_scales=(1.0, 2.0), scales=(1.0, 2.0))


def test_shares_are_votes_over_neighbours():
    near = np.array([[0, 2, 2, 2], [1, 1, 0, 0]])
    np.testing.assert_allclose(shares(near, 3), [[0.25, 0, 0.75], [0.5, 0.5, 0]])
    assert shares(np.zeros((0, 4), np.int64), 3).shape == (0, 3)


@pytest.fixture
def index(colours, packed, tmp_path):
    """index(samples, workers) of a pack of them."""

    def make(samples, workers: int = 1):
        folder = packed("train", samples)
        read = LabelledSegments(PackParts(str(folder), read_manifest(folder)), colours, SETTINGS)
        return segment_index(read, tmp_path / "segments.npz", workers)

    return make


def blank(number: int = 1, **fields):
    one = stripes(number)
    return replace(one, semantic=np.full_like(one.semantic, UNLABELLED), **fields)


def test_an_unlabelled_image_is_labelled_by_the_segments_of_others(colours, index):
    found = NeighbourVotes(colours, SETTINGS, index([stripes(0), stripes(2)]))(blank())
    assert (found.semantic == found.mask).mean() > 0.9 and found.kinds == ("neighbours",)
    assert (found.confidence > 0).all()


def test_votes_are_shares_over_all_views(colours, index):
    votes = NeighbourVotes(colours, SETTINGS, index([stripes(0)])).votes(stripes(1).image)
    assert votes.shape == (3, 12, 16)
    np.testing.assert_allclose(votes.sum(axis=0), 1, atol=1e-5)


def test_a_class_that_cannot_be_wins_nothing_and_makes_the_others_less_sure(colours, index):
    label = NeighbourVotes(colours, SETTINGS, index([stripes(0)]))
    every, two = label(blank()), label(blank(tags=(0, 1)))
    assert set(np.unique(two.semantic)) <= {0, 1, UNLABELLED}
    blue = every.mask == 2
    assert two.confidence[blue].mean() < every.confidence[blue].mean()


@pytest.mark.parametrize("size", [(1, 40), (1, 1), (5, 3)])
def test_images_of_a_few_pixels_are_labelled_too(colours, index, size):
    one = replace(stripes(0, *size), semantic=np.full(size, UNLABELLED, np.uint8))
    assert NeighbourVotes(colours, SETTINGS, index([stripes(0)]))(one).semantic.shape == size


def test_segments_are_counted_by_class_and_read_again_from_the_file(index, colours, tmp_path):
    first = index([stripes(0)])
    assert all(first.rows) and first.path.exists()
    read = LabelledSegments(PackParts("nowhere", read_manifest(tmp_path / "train")), colours, SETTINGS)
    assert segment_index(read, first.path, 1) == first


def test_a_damaged_file_is_made_anew(index, tmp_path):
    (tmp_path / "segments.npz").write_bytes(b"PK\x03\x04 half")
    assert all(index([stripes(0)]).rows)


def test_a_pack_without_labels_is_refused(index):
    with pytest.raises(DataError, match=r"no segment holds a labelled pixel; .*--index"):
        index([blank()])
