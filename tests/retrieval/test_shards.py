"""Indexes of some packs each answer as one index of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist import open_index
from spml_dist.errors import ConfigError
from spml_dist.retrieval.build import build_index
from spml_dist.retrieval.filters import Filter
from spml_dist.retrieval.segment_index import Search
from spml_dist.retrieval.shards import Opening, Shards, sharded
from tests.retrieval.conftest import packed, scenes

QUESTIONS = [
    (Search(7), Filter()),
    (Search(60), Filter(classes=("green",))),
    (Search(9, per_picture=1), Filter(tags="red", least_area=0.02)),
    (Search(5), Filter(least_area=0.99)),
]


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory) -> list[Path]:
    """Two indexes, and one of both their packs."""
    out = tmp_path_factory.mktemp("shards")
    packs = [str(packed(out / name, name, scenes(first, 4))) for name, first in (("a", 0), ("b", 2))]
    wanted = {"one": packs[:1], "two": packs[1:], "both": packs}
    for name, some in wanted.items():
        build_index(trained, some, out / f"{name}-index")
    return [out / f"{name}-index" for name in wanted]


def require_equal(shards: Shards, whole: Path) -> None:
    collection = open_index(whole)
    for row in (0, 17, len(collection) - 1):
        for search, chosen in QUESTIONS:
            vector = collection.index.vector(row)
            expected = collection.like_vector("", vector, search, chosen).neighbours
            found = shards.like_vector(vector, search, chosen)
            assert [(n.segment.id, n.similarity) for n in found] == [
                (n.segment.id, n.similarity) for n in expected
            ]


def test_two_shards_answer_as_one_index(folders):
    require_equal(Shards([Opening(folder)() for folder in folders[:2]]), folders[2])


@pytest.mark.timeout(600)
def test_two_actors_answer_as_one_index(folders):
    """Slow: Ray and Ray Serve, started for this test."""
    with sharded(folders[:2]) as shards:
        require_equal(shards, folders[2])
        with pytest.raises(ConfigError, match="give 1 to 10,000"):
            shards.like_vector(open_index(folders[2]).index.vector(0), Search(0))
