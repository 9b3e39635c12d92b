"""What the page's addresses answer, and what they refuse."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from spml_dist import open_index
from spml_dist.retrieval.build import build_index
from spml_dist.retrieval.page import uploads
from spml_dist.retrieval.page.application import application
from tests.inference.conftest import stripes
from tests.retrieval.conftest import packed, scenes
from tests.retrieval.page.conftest import OWN, SITE


def png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_the_page_and_its_files(client):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_collection_is(client, collection):
    about = client.get("/api/collection").json()
    assert (about["segments"], about["pictures"]) == (len(collection), 5)
    assert about["classes"] == ["red", "green", "blue"]


def test_from_a_picture_to_a_segment_to_its_like(client, collection):
    listed = client.get("/api/pictures").json()["pictures"]
    assert len(listed) == 5
    picture = client.get(f"/api/picture/{listed[1]['row']}").json()
    assert picture["title"] == "train/stripes-1" == listed[1]["title"]
    assert all(segment["path"].startswith("M") for segment in picture["segments"])
    jpeg = client.get(f"/picture/{picture['row']}")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(jpeg.content)).size == (61, 45)
    segment = picture["segments"][0]["id"]
    for own in (0, 1):
        found = client.get("/api/neighbours", params={"segment": segment, "k": 3, "own": own}).json()
        expected = collection.query(segment=segment, k=3, other_pictures=not own)[0].neighbours
        assert [each["segment"] for each in found["neighbours"]] == [each.segment.id for each in expected]
        assert found["query"] == segment


def test_filters_reach_the_search(client):
    wanted = {"segment": "train/stripes-0/0", "only": "blue", "tags": "green", "per_picture": 1, "least": -1}
    found = client.get("/api/neighbours", params=wanted).json()["neighbours"]
    assert {each["class"] for each in found} == {"blue"}
    keys = [each["key"] for each in found]
    assert len(keys) == len(set(keys)) and "stripes-2" not in keys


def test_a_dropped_picture_is_cut_and_asked_about(client):
    answer = client.post("/api/upload", content=png(stripes(0).image), headers=OWN).json()
    assert (answer["width"], answer["height"]) == (61, 45)
    number = next(each["number"] for each in answer["segments"] if each["class"] == "predicted red")
    found = client.get(
        "/api/neighbours", params={"upload": answer["upload"], "number": number, "k": 2}
    ).json()
    assert {each["predicted"] for each in found["neighbours"]} == {"red"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"<svg onload=alert(1)>", "cannot be decoded"),
        (b"GIF89a" + bytes(50), "cannot be decoded"),
        (png(stripes(0).image)[:90], "damaged PNG"),
        (bomb(60_000, 60_000), "more than the"),
        (bomb(9_000, 9_000), "too many pixels"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(client, content, reason):
    answer = client.post("/api/upload", content=content, headers=OWN)
    assert answer.status_code == 400 and reason in answer.json()["error"]


def test_a_large_file_is_refused_before_it_has_come(client, monkeypatch):
    pieces = []

    def endless():
        for _ in range(40):
            pieces.append(1)
            yield bytes(1_000_000)

    answer = client.post("/api/upload", content=endless(), headers=OWN)
    assert answer.status_code == 413 and "larger than 20 MB" in answer.json()["error"]


def test_a_large_picture_is_reduced(client):
    answer = client.post("/api/upload", content=png(np.zeros((200, 2048, 3), np.uint8)), headers=OWN).json()
    assert (answer["width"], answer["height"]) == (1024, 100)


def test_only_the_last_pictures_are_remembered(client, monkeypatch):
    monkeypatch.setattr(uploads, "KEPT", 2)
    content = png(stripes(0).image)
    tokens = [client.post("/api/upload", content=content, headers=OWN).json()["upload"] for _ in range(3)]
    answers = [client.get("/api/neighbours", params={"upload": token, "number": 0}) for token in tokens]
    assert [answer.status_code for answer in answers] == [400, 200, 200]
    assert "drop it once more" in answers[0].json()["error"]


def test_too_many_pictures_at_once_are_put_off(client, collection, monkeypatch):
    waiting, busy = threading.Event(), threading.Event()

    def slow(image):
        busy.set()
        waiting.wait(60)
        raise uploads.DataError("picture: enough")

    monkeypatch.setattr(uploads, "AT_ONCE", 1)
    monkeypatch.setattr(collection, "cut", slow)
    with TestClient(application(collection, ["127.0.0.1"]), base_url=SITE) as other:
        content = png(stripes(0).image)
        first = threading.Thread(target=lambda: other.post("/api/upload", content=content, headers=OWN))
        first.start()
        assert busy.wait(60)
        assert other.post("/api/upload", content=content, headers=OWN).status_code == 503
        waiting.set()
        first.join()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"segment": "train/stripes-0/0", "k": 1_000_000}, "give 1 to 200"),
        ({"segment": "train/stripes-0/0", "k": "x"}, "give 1 to 200"),
        ({"segment": "train/stripes-0/0", "k": "-1"}, "give 1 to 200"),
        ({"segment": "train/stripes-0/0", "least": "nan"}, "give -1 to 1"),
        ({"segment": "train/none/0"}, "no segment of the index"),
        ({"segment": "../../../etc/passwd"}, "no segment of the index"),
        ({}, "no segment of the index"),
        ({"segment": "0", "only": "<script>"}, "no class of the index"),
        ({"segment": "0", "tags": "(" * 900}, "--tags"),
        ({"upload": "x"}, "no longer remembered"),
    ],
)
def test_a_wrong_question_gets_a_clear_answer(client, values, reason):
    answer = client.get("/api/neighbours", params=values)
    assert answer.status_code == 400 and reason in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/picture/999999", "/api/picture/999999", "/picture/..%2f..%2fetc%2fpasswd", "/x"]
)
def test_no_path_of_a_request_is_a_file(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "error" in answer.json()


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
    ],
)
def test_requests_of_other_sites_are_refused(client, headers):
    for path in ("/api/collection", "/picture/0", "/api/neighbours?segment=0"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 403 and "refused" in answer.json()["error"]
    assert client.post("/api/upload", content=b"x", headers=OWN | headers).status_code == 403


def test_a_form_of_another_site_cannot_send_a_picture(client):
    assert client.post("/api/upload", content=png(stripes(0).image)).status_code == 403


def test_a_link_from_elsewhere_opens_the_page(client):
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_a_name_that_was_made_to_point_here_is_refused(client):
    assert client.get("/api/collection", headers={"host": "evil.example"}).status_code == 400


def test_a_pack_that_has_moved_says_so(trained, tmp_path):
    folder = packed(tmp_path / "a", "a", scenes(0, 2))
    build_index(trained, [str(folder)], tmp_path / "index")
    folder.rename(tmp_path / "b")
    client = TestClient(application(open_index(tmp_path / "index"), ["127.0.0.1"]), base_url=SITE)
    answer = client.get("/picture/0")
    assert answer.status_code == 404 and "no such file" in answer.json()["error"]
    assert client.get("/api/neighbours", params={"segment": "0"}).json()["neighbours"]
