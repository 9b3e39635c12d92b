"""Collections that can be asked exactly: classes are colours, and the network sees colours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from spml_dist.config import dump, load
from spml_dist.data.pack.pack import pack
from spml_dist.model import export
from spml_dist.records import Sample
from spml_dist.retrieval.build import build_index
from spml_dist.retrieval.collection import Collection, open_index
from tests.inference.conftest import CLASSES, ColourNet, stripes

SMALL = Path(__file__).parents[1] / "small.yaml"


def scenes(first: int, count: int) -> Iterator[Sample]:
    """Stripes in all orders; the second of three has no label and unknown tags; the third has one tag."""
    for number in range(first, first + count):
        sample = stripes(number)
        if number % 3 == 1:
            sample = replace(sample, semantic=np.full_like(sample.semantic, 254), tags=None)
        yield replace(sample, tags=(0,)) if number % 3 == 2 else sample


def load_colours(folder: Path):
    """For `export.load`: the exported network is read as one that embeds colours."""
    info = json.loads((folder / "model.json").read_text())
    info["model"]["embedding_dim"] = 3
    return ColourNet().eval(), info


@pytest.fixture(autouse=True)
def colours(monkeypatch) -> None:
    monkeypatch.setattr(export, "load", load_colours)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder as training leaves it, with data.train of 5 images in 3 shards."""
    folder = tmp_path_factory.mktemp("trained")
    packed(folder / "train", "train", scenes(0, 5))
    words = ["name=toy", f"data.train={folder}/train", f"data.val={folder}/train", "evaluation.grid=[3, 3]"]
    config = load(SMALL, words)
    run = folder / "toy"
    export.save({"nothing": torch.zeros(1)}, run / "export", config.model, list(CLASSES), None, 40)
    (run / "config.yaml").write_text(dump(config))
    return run


def packed(folder: Path, name: str, samples) -> Path:
    pack(iter(samples), folder, name, split=name, labels="band", classes=CLASSES, shard_size=2)
    return folder


@pytest.fixture(scope="session")
def built(trained, tmp_path_factory) -> Path:
    """An index of the run's data.train; tests leave it as it is."""
    out = tmp_path_factory.mktemp("built") / "index"
    # Fixtures of a test would come too late for one of the whole session.
    with mock.patch.object(export, "load", load_colours):
        build_index(trained, out=out)
    return out


@pytest.fixture(scope="session")
def collection(built) -> Collection:
    return open_index(built)


@pytest.fixture
def copied(built, tmp_path) -> Callable[[], Path]:
    """A copy of the index to damage."""

    def copy() -> Path:
        return Path(shutil.copytree(built, tmp_path / "copy"))

    return copy
