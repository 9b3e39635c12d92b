"""What others rely on: the members of a shard, the keys of a manifest, packs of version 1, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.members import OPTIONAL, REQUIRED
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from tests.data.conftest import CLASSES, HEIGHT, WIDTH, samples

VERSION_1 = Path(__file__).parent / "fixtures" / "v1"


def test_the_members_of_a_sample(tmp_path):
    assert REQUIRED == ("jpg", "semantic.png", "regions.png", "tags.json")
    assert OPTIONAL == ("weak.json", "mask.png", "confidence.png")
    first = replace(samples(1)[0], confidence=np.full((HEIGHT, WIDTH), 255, np.uint8))
    both = [first, *samples(2, mask=False)[1:]]
    pack(both, tmp_path, "pets", split="train", labels="lines", classes=CLASSES)
    with tarfile.open(tmp_path / "pets-000000.tar") as tar:
        names = tar.getnames()
    assert names == [f"image-0.{member}" for member in REQUIRED + OPTIONAL] + [
        f"image-1.{m}" for m in (*REQUIRED, "weak.json")
    ]


def test_the_keys_of_a_manifest(tmp_path):
    pack(samples(1), tmp_path, "pets", split="train", labels="lines", classes=CLASSES)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest) == [
        "background", "classes", "counts", "labels", "name", "regions", "rejected", "samples", "shards",
        "split", "version",
    ]  # fmt: skip
    assert list(manifest["shards"][0]) == ["bytes", "samples", "sha256", "url"]
    assert list(manifest["counts"]) == [
        "images_labelled", "images_of_no_kind", "images_tagged", "images_tags_unknown", "images_unlabelled",
        "images_unlisted", "images_unseen", "kinds", "named_unlisted", "named_unseen", "pixels",
        "pixels_contradicted", "pixels_labelled",
    ]  # fmt: skip
    assert manifest["version"] == 2


def test_a_pack_of_version_1_still_opens():
    manifest = read_manifest(VERSION_1)
    assert (manifest.version, manifest.samples, len(manifest.shards)) == (1, 3, 2)
    assert manifest.classes[0] == "ground" and manifest.background == 0
    assert verify(VERSION_1)["problems"] == []


def test_neither_annotations_nor_shards_import_torch():
    modules = ("recipes.folder", "generated.sample", "pack.pack", "format.verify")
    imports = ", ".join(f"spml_dist.data.{module}" for module in modules)
    run = f"import sys, {imports}; sys.exit('torch' in sys.modules or 'webdataset' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", run], check=False, timeout=120).returncode == 0
