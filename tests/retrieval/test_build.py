"""`spml-dist index`: which rows an index has, in what files, and what becomes of an interrupted build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from spml_dist import cluster
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.retrieval import build, layout, parts
from spml_dist.retrieval.build import build_index
from spml_dist.retrieval.collection import open_index
from tests.inference.conftest import stripes
from tests.retrieval.conftest import packed, scenes


def rows(folder: Path) -> list[dict]:
    return pq.read_table(folder / "metadata").to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_tools_find_faiss_and_parquet_in_one_order(built):
    index, metadata = faiss.read_index(str(built / "image.index")), rows(built)
    infos = json.loads((built / "index_infos.json").read_text())
    assert index.ntotal == len(metadata) == infos["nb vectors"] > 15
    assert [row["id"] for row in metadata] == list(range(len(metadata)))
    vectors = np.load(built / "vectors.npy").astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    _, nearest = index.search(vectors, 1)
    np.testing.assert_allclose((vectors[nearest[:, 0]] * vectors).sum(axis=1), 1, atol=2e-3)
    assert infos["index_key"] == "Flat" and infos["recall@20"] == 1


def test_a_row_says_where_its_segment_is_and_what_is_known_of_it(built):
    for row in rows(built):
        number = int(row["key"].removeprefix("stripes-"))
        sample = stripes(number)
        window = sample.mask[row["y0"] : row["y1"], row["x0"] : row["x1"]]
        assert row["shard"] == f"train-{number // 2:06d}.tar"
        assert 0 < row["area"] <= (window.size + 1) / sample.mask.size
        assert row["segment_id"] == f"train/stripes-{number}/{row['segment']}"
        assert row["tags"] == {0: ["red", "green", "blue"], 1: None, 2: ["red"]}[number % 3]
        if row["class"] is None:
            assert (row["source"], row["confidence"]) == ("none", 0)
        else:
            assert number % 3 != 1 and row["source"] == "annotated"
            assert 0.5 < row["confidence"] <= 1
            if row["confidence"] == 1:
                assert row["class"] == row["predicted"]


def test_segments_of_a_picture_cover_it_once(built):
    shares: dict[str, float] = {}
    for row in rows(built):
        shares[row["key"]] = shares.get(row["key"], 0) + row["area"]
    assert list(shares.values()) == pytest.approx([1] * 5, abs=1e-5)


def test_any_number_of_workers_gives_the_same_bytes(trained, built, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "spread", lambda function, items, workers: map(function, reversed(items)))

    def spread(function, items, workers):
        yield from map(function, reversed(list(items)))

    monkeypatch.setattr(cluster, "spread", spread)
    build_index(trained, out=tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(built)


def test_what_travels_to_workers_pickles(trained, tmp_path):
    import pickle

    writer = parts.PartWriter(trained / "export", "cpu", parts.Cut(None, (3, 3), 2), ("a",), tmp_path)
    assert pickle.loads(pickle.dumps(writer)) == writer


def test_an_interrupted_build_goes_on(trained, built, tmp_path, monkeypatch):
    out, cut_image, seen = tmp_path / "index", parts.cut_image, []

    def failing(*arguments):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return cut_image(*arguments)

    monkeypatch.setattr(parts, "cut_image", failing)
    with pytest.raises(KeyboardInterrupt):
        build_index(trained, out=out)
    with pytest.raises(RunError, match="goes on"):
        open_index(out)
    build_index(trained, out=out)
    assert len(seen) == 4 + 3, "the first shard's two images were not looked at again"
    assert contents(out) == contents(built) and not (out / ".indexing").exists()


def test_a_kill_while_files_change_places_is_made_good(trained, built, tmp_path):
    out = Path(shutil.copytree(built, tmp_path / "index"))
    whole = out / ".indexing" / "whole"
    shutil.copytree(built, whole)
    (out / "index_infos.json").unlink()
    (whole / "image.index").rename(out / "image.index")
    layout.finish(out)
    assert contents(out) == contents(built)


def test_the_second_builder_of_a_folder_is_refused(trained, tmp_path):
    out = tmp_path / "index"
    with layout.building(out), pytest.raises(RunError, match="another process builds"):
        build_index(trained, out=out)
    build_index(trained, out=out)


def test_adding_appends_and_replaces(trained, tmp_path):
    out = tmp_path / "index"
    first, other = packed(tmp_path / "a", "a", scenes(0, 3)), packed(tmp_path / "b", "b", scenes(3, 1))
    build_index(trained, [str(first)], out)
    changes = build_index(trained, [str(other)], out, add=True)
    assert (changes.added, changes.replaced, changes.removed) == (1, 0, 0)
    assert {(row["pack"], row["key"]) for row in rows(out)} == {
        *(("a", f"stripes-{number}") for number in range(3)),
        ("b", "stripes-3"),
    }
    shutil.rmtree(first)
    packed(first, "a", scenes(1, 4))  # without the first, with two more
    changes = build_index(trained, [str(first)], out, add=True)
    assert (changes.added, changes.replaced, changes.removed) == (2, 2, 1)
    pictures = [(row["pack"], row["key"]) for row in rows(out)]
    assert set(pictures) == {*(("a", f"stripes-{number}") for number in range(1, 5)), ("b", "stripes-3")}
    assert pictures[0] == ("b", "stripes-3"), "what stays comes first"
    again = open_index(out, verify=True)
    assert again.query(segment="a/stripes-4/0", k=1)[0].segment.key == "stripes-4"


def test_adding_to_another_networks_index_is_refused(trained, copied):
    folder = copied()
    infos = json.loads((folder / "index_infos.json").read_text())
    (folder / "index_infos.json").write_text(json.dumps(infos | {"model": "0" * 64}))
    with pytest.raises(RunError, match="built by another network"):
        build_index(trained, out=folder, add=True)


def test_a_folder_of_other_files_is_refused_and_stays_as_it_is(trained, tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for place in (tmp_path, tmp_path / "metadata" / "thesis.txt"):
        with pytest.raises(RunError, match=r"holds other files than an index|no folder"):
            build_index(trained, out=place)
    assert contents(tmp_path) == before


def test_a_mistake_leaves_no_folder(trained, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="no index to add to"):
        build_index(trained, out=tmp_path / "index", add=True)
    assert not (tmp_path / "index").exists()


def test_adding_to_nothing_is_refused(trained, tmp_path):
    with pytest.raises(RunError, match="no index to add to"):
        build_index(trained, out=tmp_path / "index", add=True)


def test_two_packs_of_one_name_are_refused(trained, tmp_path):
    folders = [str(packed(tmp_path / each, "a", scenes(0, 1))) for each in "xy"]
    with pytest.raises(DataError, match="a pack of the name of"):
        build_index(trained, folders, tmp_path / "index")


def test_packs_of_other_classes_are_refused(trained, tmp_path):
    build.pack_of  # noqa: B018
    from spml_dist.data.pack.pack import pack

    pack(iter([stripes(0)]), tmp_path / "a", "a", split="a", labels="band", classes=("red", "green", "sky"))
    with pytest.raises(DataError, match="2 is sky, there blue"):
        build_index(trained, [str(tmp_path / "a")], tmp_path / "index")


def test_an_image_that_does_not_decode_is_named(trained, tmp_path):
    folder = packed(tmp_path / "a", "a", scenes(0, 2))
    tar = folder / "a-000000.tar"
    content = bytearray(tar.read_bytes())
    content[600:1100] = bytes(500)  # of the first JPEG
    tar.write_bytes(content)
    changes = build_index(trained, [str(folder)], tmp_path / "index")
    assert changes.unreadable == ("stripes-0",)
    assert {row["key"] for row in rows(tmp_path / "index")} == {"stripes-1"}


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        build_index(tmp_path, out=tmp_path / "index")


def test_no_workers_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="--workers"):
        build_index(trained, out=tmp_path / "index", workers=0)
