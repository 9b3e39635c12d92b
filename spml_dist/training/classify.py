"""A classifier that is trained on a run's finished embedding, into RUN/stages/NAME: itself a run folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spml_dist.config import Config, differences, expanded, explain, load, read_section
from spml_dist.config.classifier import classifier_experiment
from spml_dist.config.flatten import leaves, text_of
from spml_dist.config.models import ModelConfig
from spml_dist.data.format.compatibility import first_difference
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.files.write import write_json
from spml_dist.model import export
from spml_dist.run_folder import MODEL_WEIGHTS, RunFolder
from spml_dist.training import data_check
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.claim import begun
from spml_dist.training.launch import Show, is_beside_rank_zero, launch, print_line

FIRST, SECOND = "s1", "s2"
"""the paper's classifiers: of the run's own weak labels, and of labels that were made from them"""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""what a folder in RUN/stages may be called"""
INPUTS = {"embedding": "another embedding", "labels": "other labels"}
"""what a classifier is made from, and what is said where it has changed"""
OWN = "classifier."
"""the section that says how the classifier is trained"""
UNREAD = ("relations.", "segments.", "bank.", "loss.", "cam.", "labeling.")
"""sections that no classifier reads"""


def classify(
    run: str | Path,
    labels: str | Path | None = None,
    out: str | None = None,
    overrides: Sequence[str] = (),
    *,
    alone: bool = False,
    show: Show = print_line,
) -> Path:
    """Train a classifier on the embedding of a finished run, which stays as it is, or go on with one.

    run: the folder that `train` returned; labels: packed images with the labels to learn from, None for those
    that the run was trained on; out: name of the folder in RUN/stages, None for `s1`, with labels `s2`;
    overrides: `dotted.key=value` changes to the run's configuration; alone, show: as `train`.

    Returns the folder, which `evaluate`, `load_model` and `predict` take. Raises RunError for a run without a
    trained network and a folder that was begun on other labels or another embedding, DataError for labels
    that cannot be used, ConfigError for a key that cannot change, and otherwise as `train`.
    """
    folder, overrides = RunFolder(Path(os.path.abspath(run))), expanded(overrides)
    config, origins = stage_experiment(folder, labels, out or (SECOND if labels else FIRST), overrides)
    manifest = data_check.check(config)  # a mistake must not claim the folder
    if not manifest.counts.images_labelled:
        remedy = "a classifier learns from pixels: make labels by `spml-dist label` or `refine`"
        raise DataError(f"{config.data.train}: no image has a labelled pixel", None, remedy)
    stage = RunFolder(Path(config.output) / config.name)
    _require_same_inputs(stage, inputs(folder, manifest))
    launch(config, alone=alone, show=show, origins=origins)
    return stage.path


def inputs(run: RunFolder, manifest: Manifest) -> dict[str, str]:
    """Digests of what a classifier learns from. manifest: of its labels."""
    with (run.export / MODEL_WEIGHTS).open("rb") as weights:
        embedding = hashlib.file_digest(weights, "sha256").hexdigest()
    tars = json.dumps([manifest.classes, [shard.sha256 for shard in manifest.shards]])
    return {"embedding": embedding, "labels": hashlib.sha256(tars.encode()).hexdigest()}


def stage_experiment(
    run: RunFolder, labels: str | Path | None, name: str, overrides: Sequence[str]
) -> tuple[Config, dict[str, str]]:
    """The stage's configuration with absolute paths, and where each value comes from; as `classify`."""
    if not run.path.is_dir():
        raise RunError(
            f"{run.path}: no such run folder", None, "give the folder that `spml-dist train` wrote"
        )
    if not NAME.fullmatch(name):
        raise ConfigError(
            "--out", name, "give a name of A-Z, a-z, 0-9, '_', '-' and '.': it goes into RUN/stages"
        )
    _, info = export.load(run.export)
    config, origins = explain(run.config, overrides)
    config = absolute(config, Path.cwd())
    pack = str(labels or config.data.train)
    _require_same_classes(pack, run, info)
    model = read_section("model", ModelConfig, info["model"], run.model_info)
    stage = classifier_experiment(config, run.stage(name), run.export, model, pack)
    _require_effect(overrides, load(run.config), config, stage)
    origins |= {key: "spml-dist classify" for key, *_ in differences(config, stage)}
    return absolute(stage, Path.cwd()), origins


def _require_same_classes(pack: str, run: RunFolder, info: Mapping) -> None:
    manifest = read_manifest(pack)
    difference = first_difference(manifest.classes, manifest.background, info["classes"], info["background"])
    if difference:
        what = f"{pack}: classes are not those that {run.path} was trained for"
        raise DataError(what, difference, "give labels of the same classes")


def _require_effect(overrides: Sequence[str], own: Config, config: Config, stage: Config) -> None:
    """Raise ConfigError for an override that the stage has no use for: it would seem to do something.

    own: of the run; config: of the run with the overrides.
    """
    before, wanted, used = leaves(own), leaves(config), leaves(stage)
    for name in (text.partition("=")[0] for text in overrides):
        of_override = [key for key in wanted if key == name or key.startswith(f"{name}.")]
        for key in of_override:
            unread = key.startswith(UNREAD) and wanted[key] != before[key]
            if unread or (not key.startswith(OWN) and wanted[key] != used[key]):
                remedy = f"the embedding is finished, and the section {OWN[:-1]} says how it is classified"
                raise ConfigError(f"{key} cannot change here", text_of(wanted[key]), remedy)


def _require_same_inputs(stage: RunFolder, now: dict[str, str]) -> None:
    """Note what a stage is made from, or raise RunError if it was begun on something else."""
    before = _noted(stage)
    others = [words for key, words in INPUTS.items() if before.get(key, now[key]) != now[key]]
    if begun(stage) and others:
        what = f"{stage.path} was begun on {' and '.join(others)}"
        raise RunError(what, None, "remove it, or `spml-dist classify` into another --out")
    if before != now and not is_beside_rank_zero():
        stage.path.mkdir(parents=True, exist_ok=True)
        write_json(stage.stage_inputs, now)


def _noted(stage: RunFolder) -> dict[str, str]:
    try:
        return dict(json.loads(stage.stage_inputs.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as problem:
        raise RunError(
            f"{stage.stage_inputs} cannot be read", problem, "remove the stage's folder"
        ) from problem
