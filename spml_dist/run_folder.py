"""Every file name of a run folder, OUTPUT/NAME. Names alone: what the files hold is their writers' matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LATEST = "latest"
"""in a folder of checkpoints, the file that names the newest whole one; in one of logs, a link to the newest
one"""
MODEL_WEIGHTS, MODEL_INFO = "model.safetensors", "model.json"
"""in an export, the network's tensors, and what is needed to build it around them"""
MODEL_GRAPH = "model.onnx"
"""in an export as ONNX, in the place of the tensors"""
RESULT = re.compile(r"result(_.+)?")
"""stem of an evaluation's numbers; what else begins so is somebody's own"""
STAGES = "stages"
"""in a run folder, what was made of the run after its training, a folder each"""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and the places in it, whether they exist or not."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; a folder with it is a run folder."""
        return self.path / "config.yaml"

    @property
    def labels(self) -> Path:
        """Counts of the training set's annotations, and what they lack."""
        return self.path / "labels.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def train_log(self) -> Path:
        """The training in lines for people."""
        return self.path / "train.log"

    def attempt(self, number: int) -> Path:
        """What the ranks said of themselves in one start of the workers, counted from 1."""
        return self.path / "logs" / f"attempt_{number:04d}"

    def attempts(self) -> list[Path]:
        """Those that exist, in any order."""
        beside = (self.path / "logs").glob("attempt_*")
        return [path for path in beside if re.fullmatch(r"attempt_\d+", path.name)]

    @property
    def latest_attempt(self) -> Path:
        """A link to the newest one's folder."""
        return self.path / "logs" / LATEST

    @property
    def stop(self) -> Path:
        """Its presence asks a training to save and stop."""
        return self.path / "stop"

    @property
    def grow(self) -> Path:
        """Its presence asks the workers to save and end, so that more of them start."""
        return self.path / "grow"

    @property
    def lock(self) -> Path:
        """Locked by the process that launched the training."""
        return self.path / "lock"

    @property
    def restarts(self) -> Path:
        """One JSON object for each failure of the workers."""
        return self.path / "restarts.jsonl"

    @property
    def ray(self) -> Path:
        """What Ray Train keeps."""
        return self.path / "ray"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained network."""
        return self.path / "export"

    def exported(self, form: str) -> Path:
        """Where `spml-dist export` writes unless it is told where."""
        return self.path / f"export_{form}"

    @property
    def model_info(self) -> Path:
        return self.export / MODEL_INFO

    def preview(self, step: int) -> Path:
        """Pictures of a batch after so many steps."""
        return self.path / "previews" / f"step_{step:06d}.png"

    def previews(self) -> list[Path]:
        """Those that exist, oldest first."""
        return sorted((self.path / "previews").glob("step_*.png"), key=preview_step)

    def system(self, node: int) -> Path:
        """How busy a machine of the run was, one JSON object a reading."""
        return self.path / "system" / f"node_{node}.jsonl"

    def systems(self) -> list[Path]:
        """Those that exist, by name."""
        return sorted((self.path / "system").glob("*.jsonl"))

    def segments(self, key: str) -> Path:
        """Labelled segments of a pack while it is labelled by them; key: digest of what they are."""
        return self.path / "segments" / f"{key[:16]}.npz"

    def result(self, split: str, oracle: bool = False, ways: Sequence[str] = ()) -> Path:
        """An evaluation's numbers; beside it lies the same as a table, with the suffix .md."""
        name = evaluation(split, oracle, ways)
        return self.path / ("result.json" if name == "val" else f"result_{name}.json")

    def results(self) -> Iterator[Path]:
        """Those that exist."""
        return (path for path in self.path.glob("result*.json") if RESULT.fullmatch(path.stem))

    def evaluations(self) -> list[Path]:
        """All files that evaluations have left, in a fixed order."""
        results = sorted(self.results())
        tables = [path.with_suffix(".md") for path in results if path.with_suffix(".md").exists()]
        return [*results, *tables, *sorted(self.path.glob("pictures/*.png"))]

    def pictures(self, split: str, oracle: bool = False, ways: Sequence[str] = ()) -> Path:
        """An evaluation's images, predictions and ground truth."""
        return self.path / "pictures" / f"{evaluation(split, oracle, ways)}.png"

    def confusion(self, split: str, oracle: bool = False, ways: Sequence[str] = ()) -> Path:
        """An evaluation's confusion matrices, drawn."""
        return self.path / "pictures" / f"confusion_{evaluation(split, oracle, ways)}.png"

    def extremes(self, split: str, oracle: bool = False, ways: Sequence[str] = ()) -> Path:
        """An evaluation's best and worst images."""
        return self.path / "pictures" / f"extremes_{evaluation(split, oracle, ways)}.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def mlflow(self) -> Path:
        """Which MLflow run this is, and what has arrived there."""
        return self.path / "mlflow.json"

    def stage(self, name: str) -> Path:
        """What was made of the run after its training: a classifier, itself a run folder, or labels."""
        return self.path / STAGES / name

    @property
    def parent(self) -> Path | None:
        """The folder of the run whose stage this is; None for no stage."""
        return self.path.parent.parent if self.path.parent.name == STAGES else None

    @property
    def stage_inputs(self) -> Path:
        """Digests of what a stage was made from."""
        return self.path / "stage.json"

    @property
    def refinement(self) -> Path:
        """What each stage came to; beside it lies the same as a table, with the suffix .md."""
        return self.path / "refinement.json"


def rank_log(attempt: Path, rank: int) -> Path:
    """What a rank printed, and where its threads were when no step was made any more."""
    return attempt / f"rank_{rank:05d}.log"


def hang(attempt: Path, rank: int) -> Path:
    """By which the ranks then tell one another whether they wait."""
    return attempt / f"hang_{rank:05d}.json"


def evaluation(split: str, oracle: bool = False, ways: Sequence[str] = ()) -> str:
    """What the files of an evaluation are named after: the split, whether neighbours' labels are true, and in
    which ways it differs from one look at whole images by both read-outs."""
    return "_".join((split, *(("oracle",) if oracle else ()), *ways))


def preview_step(preview: Path) -> int:
    """Steps that a preview's training had behind it, from its name."""
    digits = preview.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else 0
