"""What a run folder holds, as far as the report is concerned. Whatever is missing is empty."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spml_dist.errors import RunError
from spml_dist.run_folder import RunFolder


@dataclass(frozen=True)
class Contents:
    """What a report shows of a run."""

    name: str
    config: dict
    """the resolved configuration, nested"""
    config_text: str
    steps: list[dict]
    """the training log, one object a logged step, in order; of a step logged twice the later one"""
    results: list[dict]
    """evaluations, the validation split first"""
    labels: dict | None
    """labels.json: counts of the training set's annotations, and hints; None of a run without"""
    refinement: dict | None
    """refinement.json: what each stage of a refinement came to; None of a run without"""
    previews: list[Path]
    """training previews, oldest first"""
    nodes: dict[str, list[dict]]
    """by machine, how busy it was: objects with `step` and `timestamp`, in order"""
    failures: list[dict]
    """of workers, each followed by another start: objects with `timestamp`, `step` reached and `reason`"""
    folder: Path

    def extremes(self, result: dict) -> Path | None:
        """The contact sheet of its best and worst images."""
        path = RunFolder(self.folder).extremes(result["split"], result["oracle"], result.get("ways", ()))
        return path if path.exists() else None

    def pictures(self, result: dict) -> Path | None:
        """The contact sheet of an evaluation."""
        path = RunFolder(self.folder).pictures(result["split"], result["oracle"], result.get("ways", ()))
        return path if path.exists() else None


def read(folder: Path) -> Contents:
    """Read what there is; a damaged line of a log is passed over (a run may be writing it).

    RunError: a configuration, a result or a note of labels that cannot be read.
    """
    run = RunFolder(folder)
    path = run.config
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    config = (_parsed(path, yaml.safe_load) if path.exists() else None) or {}
    return Contents(
        name=config.get("name", folder.name),
        config=config,
        config_text=text,
        steps=_steps(run.metrics),
        results=sorted(map(_result, run.results()), key=_place),
        labels=_noted(run.labels),
        refinement=_noted(run.refinement),
        previews=run.previews(),
        nodes={path.stem: _steps(path) for path in run.systems()},
        failures=list(_objects(run.restarts)) if run.restarts.exists() else [],
        folder=folder,
    )


def _result(path: Path) -> dict:
    """An evaluation. Raises RunError for a file that holds something else."""
    found = _parsed(path, json.loads)
    if not isinstance(found, dict) or not {"split", "oracle", "readouts", "images"} <= found.keys():
        raise RunError(f"{path} is no result of `spml-dist evaluate`", None, "give it another name")
    return found


def _place(result: dict) -> tuple:
    """The validation split first, and of each split one look at whole images."""
    return result["split"] != "val", result["split"], result["oracle"], result.get("ways", [])


def _noted(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    return _parsed(path, json.loads) if path.exists() else None


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read", problem, "restore it, or take it away") from error


def _steps(path: Path) -> list[dict]:
    by_step = {row["step"]: row for row in _objects(path)} if path.exists() else {}
    return [by_step[step] for step in sorted(by_step)]


def _objects(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
