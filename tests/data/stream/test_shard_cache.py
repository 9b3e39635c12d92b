"""Fetched shards: checked, fetched once for all processes, and never more of them than there is room for."""

from __future__ import annotations

import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from spml_dist.data.format.manifest import Shard
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError
from spml_dist.files import retry
from tests import servers

SIZE = 10_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.02)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with servers.http(tmp_path / "served") as server:
        yield server


@pytest.fixture
def shard(tmp_path, server):
    """shard(number) -> (address, what its manifest says)"""

    def make(number: int) -> tuple[str, Shard]:
        content = bytes([number]) * SIZE
        (tmp_path / "served" / f"{number}.tar").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return f"{server.url}/{number}.tar", Shard(f"{number}.tar", 1, SIZE, digest)

    return make


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    return ShardCache(str(tmp_path / "cache"), retry_seconds=0.3)


def kept(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in Path(cache.folder).iterdir() if path.suffix != ".lock")


def test_a_shard_is_fetched_once_and_read_where_it_lies(cache, shard, server):
    url, known = shard(1)
    for _ in range(3):
        with cache.open(url, known) as file:
            assert file.read() == bytes([1]) * SIZE
    cache.fetch_ahead(url, known)
    assert server.asked == ["/1.tar"]
    assert kept(cache) == [f"{known.sha256}.tar"]


def test_those_who_ask_at_once_wait_for_one_fetch(cache, shard, server):
    url, known = shard(1)
    with ThreadPoolExecutor(8) as readers:
        contents = list(readers.map(lambda _: cache.open(url, known).read(), range(8)))
    assert contents == [bytes([1]) * SIZE] * 8 and server.asked == ["/1.tar"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": SIZE + 1}, f"not the {SIZE + 1} bytes .* \\(got {SIZE}\\)"),
        ({"sha256": "ab" * 32}, r"not the (ab){32} as sha256 .* \(got [0-9a-f]{64}\)"),
        ({"sha256": "../../etc"}, "not a sha256"),
    ],
    ids=["size", "digest", "no digest"],
)
def test_a_shard_that_is_not_what_its_manifest_says_is_not_kept(cache, shard, change, message):
    url, known = shard(1)
    with pytest.raises(DataError, match=message) as caught:
        cache.open(url, replace(known, **change))
    assert str(caught.value).startswith(url)
    assert not Path(cache.folder).exists() or kept(cache) == []


def test_the_longest_unused_go_when_there_is_no_more_room(cache, shard):
    small = replace(cache, gb=2.5 * SIZE / 1e9)
    shards = [shard(number) for number in range(3)]
    paths = [Path(cache.folder) / f"{known.sha256}.tar" for _, known in shards]
    first = small.open(*shards[0])
    small.open(*shards[1]).close()
    for path, when in zip(paths, (100, 200), strict=False):
        os.utime(path, (when, when))
    small.open(*shards[2]).close()
    assert [path.exists() for path in paths] == [False, True, True]
    assert first.read() == bytes(1) * SIZE, "who has it open goes on reading"
    first.close()
    small.open(*shards[1]).close()
    os.utime(paths[2], (300, 300))
    small.open(*shards[0]).close()
    assert [path.exists() for path in paths] == [True, True, False], "opening counts as use"


def test_less_room_than_a_shard_still_serves_it(cache, shard):
    tiny = replace(cache, gb=1e-9)
    for number in (0, 1, 0):
        assert tiny.open(*shard(number)).read() == bytes([number]) * SIZE
    assert len(kept(cache)) == 1


def test_what_a_killed_process_left_is_written_over(cache, shard):
    url, known = shard(1)
    Path(cache.folder).mkdir()
    (Path(cache.folder) / f"{known.sha256}.tar.tmp").write_bytes(b"half")
    assert len(cache.open(url, known).read()) == SIZE
    assert kept(cache) == [f"{known.sha256}.tar"]


def test_a_server_that_stays_away_is_named(cache, shard, server):
    url, known = shard(1)
    server.answer = lambda path: 503
    with pytest.raises(DataError) as caught:
        cache.open(url, known)
    assert str(caught.value).startswith(f"{url}: cannot be read in ")
    assert len(server.asked) > 2 and kept(cache) == []


def test_a_folder_that_cannot_be_made_names_the_key(cache, shard, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache: cannot hold http://.*stream\.cache"):
        replace(cache, folder=str(tmp_path / "file" / "cache")).open(*shard(1))


def test_it_lies_in_the_temporary_folder_unless_told_otherwise(shard, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    pickle.loads(pickle.dumps(ShardCache())).open(*shard(1)).close()
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.name.startswith("spml-dist-") and len(list(folder.glob("*.tar"))) == 1
