"""Labels that neighbours contradict are found; what they are listed as."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from spml_dist import cli, open_index
from spml_dist.retrieval import audit
from spml_dist.retrieval.build import build_index
from tests.inference.conftest import stripes
from tests.retrieval.conftest import packed


def mislabelled(number: int):
    """Whole masks for labels; the third picture calls red what is blue."""
    sample = stripes(number)
    if number != 2:
        return replace(sample, semantic=sample.mask)
    return replace(sample, semantic=np.where(sample.mask == 2, 0, sample.mask).astype(np.uint8))


def test_the_wrong_labels_are_found_first(trained, tmp_path, capsys):
    folder = packed(tmp_path / "a", "a", map(mislabelled, range(6)))
    build_index(trained, [str(folder)], tmp_path / "index")
    collection = open_index(tmp_path / "index")
    found = audit.records(collection, audit.audit(collection, k=5))
    assert (found[0]["image"], found[0]["class"], found[0]["suggested"]) == ("stripes-2", "red", "blue")
    assert found[0]["suspicion"] > 0.9 >= found[-1]["suspicion"] - 0.1
    x, y = found[0]["point"]
    assert stripes(2).mask[y, x] == 2, "the point lies in the segment"
    words = ["audit", str(tmp_path / "index"), "-k", "5", "-n", "2"]
    files = [str(tmp_path / name) for name in ("a.json", "a.html")]
    assert cli.main([*words, "--json", files[0], "--html", files[1]]) == 0
    assert "2 shown" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text()) == found


def test_votes_are_weighted_by_similarity():
    assert audit.judged(0, np.array([0.9, 0.4, 0.4]), np.array([0, 1, 1]), 2) is None
    suspicion, suggested, support = audit.judged(0, np.array([0.2, 0.5, 0.3]), np.array([0, 1, 2]), 3)
    np.testing.assert_allclose((suspicion, suggested, support), (0.8, 1, 0.5))
    assert audit.judged(0, np.zeros(0), np.zeros(0, int), 3) is None
