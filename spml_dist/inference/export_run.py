"""A run's network as a folder that is used without the run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.files.write import write_json
from spml_dist.inference import onnx_graph
from spml_dist.inference.trained_model import load_model, shown_images
from spml_dist.run_folder import MODEL_GRAPH, MODEL_INFO, MODEL_WEIGHTS, RunFolder

Format = Literal["safetensors", "onnx"]
FILE: dict[Format, str] = {"safetensors": MODEL_WEIGHTS, "onnx": MODEL_GRAPH}
"""what holds the network, beside model.json"""


@dataclass(frozen=True)
class ExportedModel:
    """What an export came to."""

    folder: Path
    info: dict[str, Any]
    """the contents of model.json"""
    new: bool
    """False where the same export was there before"""
    difference: float | None = None
    """largest difference of the outputs of a new ONNX graph from the network's"""


def export_run(run: Path, form: Format = "safetensors", out: Path | None = None) -> ExportedModel:
    """Write the network of a finished run and model.json into a folder, whole or not at all.

    out: the folder, which must not exist unless it holds the same; None = RUN/export_FORMAT. model.json has
    what RUN/export/model.json has (classes, background, mean and deviation, step) and `crop`, `longer_side`,
    `swaps` and the weights' `digest`. Raises RunError for a run without a trained segmenter, a folder that
    holds something else, and as `onnx_graph.write`.
    """
    source = RunFolder(run)
    model = load_model(run, device="cpu")
    info, out = _info(source, form), out or source.exported(form)
    if out.exists():
        _require_same(out, info, FILE[form])
        return ExportedModel(out, info, new=False)
    aside = out.with_name(f".{out.name}.spml-dist-export")  # a name that is nobody's
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        difference = None
        if form == "onnx":
            difference = onnx_graph.write(model.network, aside / MODEL_GRAPH)
        else:
            shutil.copyfile(source.export / MODEL_WEIGHTS, aside / MODEL_WEIGHTS)
        write_json(aside / MODEL_INFO, info, sort_keys=False)
        os.replace(aside, out)
    except OSError as problem:
        raise RunError(f"{out} cannot be written", problem.strerror, "give another --out") from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return ExportedModel(out, info, new=True, difference=difference)


def _info(run: RunFolder, form: Format) -> dict[str, Any]:
    config = load(run.config)
    with (run.export / MODEL_WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return json.loads(run.model_info.read_text(encoding="utf-8")) | {
        "format": form,
        **shown_images(config),
        "swaps": [list(pair) for pair in config.stream.mirror_swaps],
        "digest": digest,
    }


def _require_same(out: Path, info: dict[str, Any], file: str) -> None:
    """Raise RunError unless the folder is what would be written."""
    try:
        known = json.loads((out / MODEL_INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != info or not (out / file).is_file():
        what = f"{out} exists and holds " + ("another export" if known else "no export")
        raise RunError(what, None, "give another --out, or remove it")
