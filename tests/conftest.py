"""A tiny experiment for the tests of the training path: generated scenes, a small network, six steps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

# Two processes of tests on two cores, each with threads for both, wait for one another several times as long
# as they compute. Libraries read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Kernels run in Triton's interpreter, on the CPU: also for a library, when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis
import pytest

from spml_dist import cli
from spml_dist.config import load

# A machine that is busy with something else is no mistake of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SMALL = Path(__file__).parent / "small.yaml"


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """Packed scenes of 64 pixels a side: train holds 12 in three shards, val 4."""
    out = tmp_path_factory.mktemp("sample")
    words = ["--images", "12", "--val", "4", "--size", "64", "--shard-size", "5"]
    assert cli.main(["pack", "sample", "--out", str(out), *words]) == 0
    return out


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """MLflow's tables without a run in them: making them takes ten seconds of a processor."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def experiment(sample: Path, database: Path) -> Callable[..., list[str]]:
    """experiment(output, name, *overrides): what follows `spml-dist train` for the tiny experiment."""

    def words(output: Path, name: str, *overrides: str) -> list[str]:
        if output.is_dir() and not (output / "mlflow.db").exists():
            shutil.copyfile(database, output / "mlflow.db")
        return [
            str(SMALL),
            f"output={output}",
            f"name={name}",
            f"data.train={sample}/train",
            f"data.val={sample}/val",
            "model.embedding_dim=8",
            "stream.batch=4",
            "stream.crop=64",
            "segments.grid=[3, 3]",
            "schedule.steps=6",
            "schedule.warmup=2",
            "engine.device=cpu",
            "checkpoint.every=2",
            f"tracking.uri=sqlite:///{output}/mlflow.db",
            "tracking.every=1",
            "tracking.previews_every=3",
            "tracking.previews=2",
            "evaluation.grid=[3, 3]",
            "evaluation.pictures=2",
            *overrides,
        ]

    return words


def payload(words: Sequence[str], stop_before: int | None = None) -> dict:
    """What `spml-dist train WORDS` hands to every worker, with the run folder made as it makes it.

    stop_before: `work` fails when this step (counted from 0) would be made.
    """
    from spml_dist.training.absolute_paths import absolute
    from spml_dist.training.claim import claim
    from spml_dist.training.launch import folder_of

    config = absolute(load(words[0], words[1:]), Path.cwd())
    claim(folder_of(config), config)
    return {"config": config.model_dump(mode="json"), "stop_before": stop_before}


def work(rank: int, payloads: Sequence[dict]) -> list[dict]:
    """For `tests.spawn`: train one payload after the other as a Ray worker would.

    Returns for each what this rank did: "steps" it made and "error", the text of what stopped it, or None.
    """
    from spml_dist.training import loop
    from spml_dist.training.worker import work as train

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    outcome, make_step = [], loop.make_step
    for one in payloads:
        message = {"steps": [], "error": None}

        def watched(run, step, *rest, one=one, message=message):
            if step == one["stop_before"]:
                raise InterruptedError(f"before step {step}")
            message["steps"].append(step)
            return make_step(run, step, *rest)

        loop.make_step = watched
        try:
            train(one)
        except Exception as problem:
            message["error"] = f"{type(problem).__name__}: {problem}"
        outcome.append(message)
    return outcome
