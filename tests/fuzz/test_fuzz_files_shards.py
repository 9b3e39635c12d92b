"""Packs: a damaged tar or manifest is read, or refused in one line; verify tells it and does not fail."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.format.manifest import present_counts, read_manifest
from spml_dist.data.format.members import OPTIONAL, REQUIRED, decode, encode, encode_jpeg
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import Reader
from spml_dist.errors import DataError, SpmlError
from tests.data.conftest import CLASSES, HEIGHT, WIDTH, samples
from tests.fuzz.conftest import fuzz
from tests.fuzz.damage import JSON, damaged, spoilt

TAR = "pets-000000.tar"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    pack(samples(2), folder, "pets", split="train", labels="lines", classes=CLASSES, background=0)
    return folder


def tried(folder: Path) -> None:
    """Verify and read a pack: each sample is there, or refused in one line."""
    try:
        manifest = read_manifest(folder)
        present_counts(folder)
    except DataError as error:
        assert "\n" not in str(error)
        return
    try:
        problems = verify(folder)["problems"]
    except DataError as error:  # an address that is out of reach, say
        problems = [str(error)]
    reader = Reader(folder, manifest)
    for shard in range(len(manifest.shards)):
        try:
            for index in range(min(9, manifest.shards[shard].samples)):
                reader.read(shard, index)
        except SpmlError as error:
            assert problems and "\n" not in str(error)


@fuzz
@given(st.data())
def test_a_damaged_tar(packed, data):
    content = data.draw(damaged((packed / TAR).read_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TAR).write_bytes(content)
        manifest = json.loads((packed / "manifest.json").read_text())
        if data.draw(st.booleans()):  # damaged before it was packed, as it were: size and digest are right
            manifest["shards"][0] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (Path(folder) / "manifest.json").write_text(json.dumps(manifest))
        tried(Path(folder))


@fuzz
@given(st.data())
def test_a_spoilt_manifest(packed, data):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(packed / TAR, folder)
        sound = json.loads((packed / "manifest.json").read_text())
        manifest = data.draw(spoilt(sound).filter(lambda value: "://" not in json.dumps(value)))
        (Path(folder) / "manifest.json").write_text(json.dumps(manifest))
        tried(Path(folder))


@fuzz
@given(st.data())
def test_a_damaged_text_of_a_manifest(packed, data):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(packed / TAR, folder)
        (Path(folder) / "manifest.json").write_bytes(
            data.draw(damaged((packed / "manifest.json").read_bytes()))
        )
        tried(Path(folder))


SAMPLE = replace(samples(1)[0], confidence=np.full((HEIGHT, WIDTH), 200, np.uint8))
MEMBERS = dict(encode(SAMPLE, encode_jpeg(SAMPLE)))


@pytest.mark.parametrize("member", [*REQUIRED, *OPTIONAL])
@fuzz
@given(st.data())
def test_a_damaged_member_of_a_sample(member, data):
    ways = damaged(MEMBERS[member])
    if member.endswith("json"):
        ways |= spoilt(json.loads(MEMBERS[member])).map(lambda value: json.dumps(value).encode())
        ways |= JSON.map(lambda value: json.dumps(value).encode())
    try:
        decode("image-0", MEMBERS | {member: data.draw(ways)}, len(CLASSES))
    except DataError as error:
        assert str(error).startswith("image-0") and "\n" not in str(error)
