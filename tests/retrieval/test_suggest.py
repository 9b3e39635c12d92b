"""Points are suggested where they stand for much that is unlike what is labelled."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from spml_dist import cli
from spml_dist.data.annotations.points import checked_points
from spml_dist.retrieval.build import build_index
from spml_dist.retrieval.suggest import greedy
from tests.inference.conftest import CLASSES, stripes
from tests.retrieval.conftest import packed


def test_greedy_takes_what_adds_most():
    similarity = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    weight = np.ones(4, np.float32)
    chosen = greedy(similarity, weight, np.zeros(4, np.float32), 3)
    assert [place for place, _ in chosen] == [0, 2, 3] and chosen[0][1] > chosen[1][1]
    covered = np.array([0.95, 0.95, 0, 0], np.float32)
    assert greedy(similarity, weight * [1, 1, 1, 3], covered, 1)[0][0] == 3, "large and unlike what is known"
    assert len(greedy(similarity, weight, covered, 9)) == 4


def test_what_is_unlike_the_labels_comes_first_and_pack_reads_it(trained, tmp_path):
    """Red and green are labelled in the first picture, blue nowhere."""

    def scene(number: int):
        sample = stripes(number)
        semantic = np.full_like(sample.mask, 254)
        if number == 0:  # well inside of the stripes
            semantic[:, 4:14], semantic[:, 26:34] = 0, 1
        return replace(sample, semantic=semantic)

    build_index(trained, [str(packed(tmp_path / "a", "a", map(scene, range(4))))], tmp_path / "index")
    out = tmp_path / "points.json"
    assert cli.main(["suggest", str(tmp_path / "index"), "-n", "2", "--out", str(out)]) == 0
    points = json.loads(out.read_text())
    assert sum(map(len, points.values())) == 2
    first = [(image, point) for image, each in points.items() for point in each]
    assert any(label == 2 for _, (label, _, _) in first)
    for image, (label, x, y) in first:
        mask = stripes(int(image.removeprefix("stripes-"))).mask
        assert mask[y, x] == label
        assert checked_points([[label, x, y]], mask.shape, len(CLASSES), "points.json")
