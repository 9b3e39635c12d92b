"""Packs behind HTTP and in an S3-compatible store give the batches of local ones."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import Reader, samples
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError
from tests import servers

from .test_loader import assert_same, steps


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    return ShardCache(str(tmp_path / "cache"), retry_seconds=5)


def assert_streams_agree(folder: Path, url: str, cache: ShardCache) -> None:
    for (expected, state), (batches, other) in zip(steps(folder, 4), steps(url, 4, cache=cache), strict=True):
        assert state == other, "a run may go on where its shards lie elsewhere"
        assert_same(expected[0], batches[0])


def test_http(packed, cache):
    folder = packed(7, 3)
    with servers.http(folder.parent) as server:
        url = f"{server.url}/beach"
        assert_streams_agree(folder, url, cache)
        tars = [path for path in server.asked if path.endswith(".tar")]
        assert sorted(tars) == [f"/beach/beach-00000{number}.tar" for number in range(3)], "each once"


def test_s3(packed, cache, monkeypatch):
    pytest.importorskip("s3fs")
    folder = packed(7, 3)
    with servers.s3("pictures", folder.parent) as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert_streams_agree(folder, f"{bucket}/beach", cache)
        with pytest.raises(DataError, match=r"s3://pictures/elsewhere/manifest\.json: cannot be read \("):
            read_manifest(f"{bucket}/elsewhere")


def test_a_local_manifest_may_name_tars_elsewhere(packed, cache):
    folder = packed(7, 3)
    expected = [sample.key for sample in samples(folder)]
    with servers.http(folder.parent) as server:
        path = folder / "manifest.json"
        written = json.loads(path.read_text())
        for shard in written["shards"]:
            shard["url"] = f"{server.url}/beach/{shard['url']}"
        elsewhere = folder.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "manifest.json").write_text(json.dumps(written))
        assert [sample.key for sample in samples(elsewhere, cache=cache)] == expected


def test_shards_that_will_be_read_soon_are_fetched_in_the_background(packed, cache):
    folder = packed(6, 1)
    with servers.http(folder.parent) as server:
        reader = Reader(f"{server.url}/beach", read_manifest(folder), cache=cache)
        reader.expect((4, 2))
        reader.expect((4, 2))
        for thread in threading.enumerate():
            if thread.name == "expected shards":
                thread.join(60)
        assert server.asked == ["/beach/beach-000004.tar", "/beach/beach-000002.tar"]
        assert reader.read(2, 0).key == "beach-002" and len(server.asked) == 2


def test_local_shards_are_read_in_place(packed, cache):
    reader = Reader(folder := packed(), read_manifest(folder), cache=cache)
    reader.expect((0, 1, 2))
    reader.read(0, 0)
    assert not Path(cache.folder).exists()


def test_a_server_that_goes_away_stops_the_stream_with_its_address(packed, cache):
    folder = packed(7, 3)
    quick = ShardCache(cache.folder, retry_seconds=0.3)
    with servers.http(folder.parent) as server:
        server.answer = lambda path: 200 if path.endswith("json") else 500
        with pytest.raises(DataError, match=rf"{server.url}/beach/beach-00000\d\.tar: cannot be read in"):
            steps(f"{server.url}/beach", 1, cache=quick)
