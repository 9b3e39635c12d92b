"""Files by address: tried again while there is hope, and every refusal names the address."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from spml_dist.errors import DataError
from spml_dist.files import address, retry
from tests import servers
from tests.data.conftest import CLASSES, samples


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(address, "RETRY_SECONDS", 0.5)


@pytest.fixture
def packed(tmp_path) -> Path:
    folder = tmp_path / "served" / "pets"
    about = {"split": "train", "labels": "lines", "classes": CLASSES, "background": 0}
    pack(samples(4), folder, "pets", **about, shard_size=2)
    return folder


@pytest.fixture
def server(packed):
    with servers.http(packed.parent) as server:
        yield server


def refused(url: str) -> str:
    with pytest.raises(DataError) as caught:
        address.read(url, 0.5)
    return str(caught.value)


@pytest.mark.parametrize(
    ("folder", "name", "whole"),
    [
        ("data/pets", "a.tar", "data/pets/a.tar"),
        (Path("data/pets"), "/elsewhere/a.tar", "/elsewhere/a.tar"),
        ("data/pets", "http://host/a.tar", "http://host/a.tar"),
        ("s3://bucket/pets/", "a.tar", "s3://bucket/pets/a.tar"),
        ("http://host/pets", "s3://bucket/a.tar", "s3://bucket/a.tar"),
    ],
)
def test_tars_are_found_beside_their_manifest_or_where_it_says(folder, name, whole):
    assert address.join(folder, name) == whole


@pytest.mark.parametrize("url", ["pipe:cat a.tar", "file:///etc/passwd", "simplecache::s3://b/a.tar", "a:b"])
def test_other_kinds_of_addresses_are_refused_by_name(url):
    with pytest.raises(DataError, match=f"got {url.split(':')[0]}:"):
        address.is_remote(url)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_package_that_is_not_installed_is_named():
    refusal = refused("gs://bucket/pets/manifest.json")
    assert (
        "gs://bucket/pets" in refusal
        and "gcsfs is not installed" in refusal
        and "pip install gcsfs" in refusal
    )


def test_a_pack_behind_http_is_read_and_verified_like_a_local_one(packed, server):
    url = f"{server.url}/pets"
    assert read_manifest(url) == read_manifest(packed)
    ours, theirs = verify(packed), verify(url)
    assert theirs["problems"] == [] and theirs == {**ours, "folder": url}


def test_verifying_behind_http_names_every_damaged_tar(packed, server):
    first, second = sorted(packed.glob("*.tar"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-512])
    found = {
        problem["tar"]: problem["problem"] for problem in reversed(verify(f"{server.url}/pets")["problems"])
    }
    assert found[first.name] == "the file is missing"
    assert "truncated" in found[second.name]


@pytest.mark.parametrize("trouble", [503, 429, 0], ids=["unavailable", "too many", "broken off"])
def test_a_trouble_that_passes_is_waited_for(server, packed, caplog, trouble):
    server.answer = lambda path: trouble if len(server.asked) < 3 else 200
    url = f"{server.url}/pets/manifest.json"
    with caplog.at_level(logging.WARNING):
        assert address.read(url, 30) == (packed / "manifest.json").read_bytes()
    assert len(server.asked) == 3
    assert [url in message for message in caplog.messages] == [True, True]


def test_pauses_grow(server, monkeypatch):
    pauses = []
    monkeypatch.setattr(retry, "FIRST_PAUSE", 1)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 5)
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    server.answer = lambda path: 503 if len(server.asked) < 6 else 200
    address.read(f"{server.url}/pets/manifest.json", 30)
    assert pauses == [1, 2, 4, 5, 5]


@pytest.mark.parametrize("status", [404, 403])
def test_what_will_not_change_is_not_tried_again(server, status):
    server.answer = lambda path: status
    url = f"{server.url}/pets/manifest.json"
    refusal = refused(url)
    assert refusal.startswith(f"{url}: cannot be read") and "\n" not in refusal
    assert len(server.asked) == 1


@pytest.mark.parametrize("folder", ["http", "s3"])
def test_an_address_where_nobody_answers_is_one_error_after_a_while(monkeypatch, folder):
    url = servers.dead_url()
    if folder == "s3":
        monkeypatch.setattr(address, "RETRY_SECONDS", 8)  # its first attempt prepares much
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        url = "s3://nowhere"
    with pytest.raises(DataError) as caught:
        read_manifest(f"{url}/pets")
    refusal = str(caught.value)
    assert refusal.startswith(f"{url}/pets/manifest.json: cannot be read in ") and "attempts" in refusal
    assert "\n" not in refusal and "check the address" in refusal


def test_a_target_that_cannot_be_written_is_not_the_server_s_fault(server, tmp_path):
    target = tmp_path / "none" / "shard.tar"
    with pytest.raises(DataError, match=r"none/shard\.tar: cannot hold http.*stream\.cache"):
        address.fetch(f"{server.url}/pets/manifest.json", target, 30)
    assert len(server.asked) == 1
