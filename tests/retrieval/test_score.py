"""Precision, recall and purity of neighbours; the plain backbone beside."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.errors import ConfigError
from spml_dist.retrieval import score
from spml_dist.retrieval.plain_backbone import PlainBackbone
from spml_dist.retrieval.score import scores
from tests.inference.conftest import ColourNet


def test_by_hand():
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.8, 0.2]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    label, picture = np.array([0, 0, 1, 1, 1]), np.arange(5)
    found = scores(vectors, label, picture, k=1, classes=3)
    # 0 and 1 find each other, 2 and 3 too, 4 finds 1.
    np.testing.assert_allclose(found.precision, [1, 2 / 3, np.nan, 4 / 5])
    np.testing.assert_allclose(found.recall, [1, 2 / 3, np.nan, 4 / 5])
    np.testing.assert_allclose(found.purity, [2 / 3, 1, np.nan, 4 / 5])


@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_nearest_are_those_of_a_stable_sort_whatever_is_alike(k):
    similarity = np.random.default_rng(0).integers(0, 6, (20, 30)).astype(np.float32)  # few values: many ties
    similarity[:, ::7] = -np.inf
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(score.nearest(similarity, k), expected)


def test_rows_of_ones_own_picture_do_not_count():
    found = scores(np.eye(2, dtype=np.float32)[[0, 0, 1]], np.array([0, 0, 1]), np.array([0, 0, 1]), 2, 2)
    assert found.precision[-1] == 0


def test_colours_are_found_by_a_network_that_sees_colours(collection, monkeypatch):
    def none(*_):
        raise ConfigError("--backbone: none here")

    monkeypatch.setattr(score, "plain_backbone", none)
    result = score.score(collection, k=2)
    assert result["trained"]["precision"][-1] > 0.8
    assert result["plain"] is None and "none here" in score.table(result)
    with pytest.raises(ConfigError, match="none here"):  # one that was asked for by name
        score.score(collection, k=2, backbone="rsenet")


def test_the_plain_backbone_looks_at_the_same_segments(collection, monkeypatch):
    class Plain(ColourNet):
        name, embedded = "colours", PlainBackbone.embedded

    monkeypatch.setattr(score, "plain_backbone", lambda *_: Plain())
    result = score.score(collection, k=2)
    assert result["plain"]["precision"] == pytest.approx(result["trained"]["precision"], abs=0.05)
    assert "precision@2, plain" in score.table(result)
