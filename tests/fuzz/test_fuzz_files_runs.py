"""What runs leave and start from: a bank's snapshot, a checkpoint, weights. Read, or refused in one line."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from spml_dist.bank import snapshot
from spml_dist.bank.recent import RecentBank
from spml_dist.config import load
from spml_dist.errors import SpmlError
from spml_dist.model import weights
from spml_dist.training import checkpoint
from spml_dist.training.checkpoint_writer import CheckpointWriter
from tests.bank.builders import rows_of
from tests.fuzz.conftest import fuzz
from tests.fuzz.damage import damaged, spoilt
from tests.training.test_checkpoint import Engine, bank_of, global_bank

SMALL = Path(__file__).parents[1] / "small.yaml"


def refused(call, *arguments) -> bool:
    """Whether the call raised an error of one line; any other error fails the test."""
    try:
        result = call(*arguments)
        for _ in result if hasattr(result, "__next__") else ():
            pass
    except SpmlError as error:
        assert "\n" not in str(error)
        return True
    return False


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint with each kind of bank."""
    folder, config = tmp_path_factory.mktemp("checkpoints"), load(SMALL)
    bank = global_bank()
    bank.add(rows_of(["a", "b"], [3, 4]), ["a", "b"])
    state = {"step": 7, "fingerprint": "f"}
    paths = {}
    for name, one in (("recent", bank_of(1, 7)), ("whole", bank)):
        writer = CheckpointWriter(folder / name, config)
        paths[name] = writer.begin(Engine(), one, state)
        writer.finish()
    return paths


def read(path: Path) -> None:
    """Everything that a training that goes on reads of a checkpoint."""
    refused(checkpoint.require_whole, path)
    refused(checkpoint.read, path)
    if (path / "bank" / "rows.safetensors").exists():
        refused(RecentBank(4).restore, path / "bank")
        return
    refused(snapshot.read_shards, path / "bank")
    refused(snapshot.verify_indexes, path / "bank")
    refused(global_bank().restore, path / "bank")


@pytest.mark.parametrize("kind", ["recent", "whole"])
@fuzz
@given(st.data())
def test_a_damaged_file_of_a_checkpoint(saved, kind, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(saved[kind], Path(folder) / "step_000007"))
        files = sorted(each for each in path.rglob("*") if each.is_file() and each.name != "config.yaml")
        file = data.draw(st.sampled_from(files))
        file.write_bytes(data.draw(damaged(file.read_bytes())))
        read(path)


@fuzz
@given(st.data())
def test_a_spoilt_manifest_of_a_bank(saved, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(saved["whole"], Path(folder) / "step_000007"))
        manifest = path / "bank" / "manifest.json"
        manifest.write_text(json.dumps(data.draw(spoilt(json.loads(manifest.read_text())))))
        read(path)


@fuzz
@given(st.binary(max_size=40) | st.text(max_size=12).map(str.encode))
def test_any_name_of_the_latest_checkpoint(text):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "latest").write_bytes(text)
        assert refused(checkpoint.latest, Path(folder))


STATE = {
    "conv.weight": torch.ones(2, 3),
    "bn.num_batches_tracked": torch.tensor(3),
    "fc.bias": torch.zeros(2),
}


def torch_file(**options) -> bytes:
    content = io.BytesIO()
    torch.save({"model": STATE, "epoch": 3}, content, **options)
    return content.getvalue()


WEIGHTS = {
    "safetensors": save(STATE),
    "zip": torch_file(),
    "pickle": torch_file(_use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", WEIGHTS)
@fuzz
@given(st.data())
def test_a_damaged_file_of_weights(form, data):
    content = data.draw(damaged(WEIGHTS[form]) | st.binary(max_size=60))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / data.draw(st.sampled_from(("w.pth", "w.safetensors", "w.bin")))
        path.write_bytes(content)
        if not refused(weights.read, str(path)):
            weights.fitted(weights.read(str(path)), STATE)
