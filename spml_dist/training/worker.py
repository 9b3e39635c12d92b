"""What every training process runs, whoever launched it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from spml_dist import __version__, comm
from spml_dist.config import Config
from spml_dist.data.format.manifest import read_manifest
from spml_dist.errors import RunError, Stopped
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import system_metrics
from spml_dist.training import rank_log
from spml_dist.training.build import build
from spml_dist.training.device import device_of, settle
from spml_dist.training.loop import train
from spml_dist.training.task import CAM, SEGMENTER, Task


def work(payload: dict[str, Any]) -> None:
    """Train one rank to the end.

    payload: {"config": the resolved configuration as plain data, "network": "cam" for the CAM classifier,
    and nothing or "segmenter" for the segmenter, "device": "cuda" or "cpu" as all ranks were told, and
    nothing for what engine.device means on this machine, "unseen": whether nobody sees what this process
    prints, so that it goes to the rank's log}.

    With DeepSpeed where there is a process group already, else alone and without it. Raises SpmlError for
    what a user can mend, and Stopped once the run is saved because it was asked to stop.
    """
    _require_one_release()  # before anything that another release might understand in another way
    config = Config.model_validate(payload["config"], strict=False)
    device = device_of(payload.get("device", config.engine.device))
    settle(config.engine, device)
    task = CAM if payload.get("network") == CAM.network else SEGMENTER
    folder = RunFolder(Path(config.output) / config.name)
    with rank_log.kept(folder, bool(payload.get("unseen"))) as logs:
        _train(config, device, task, logs)


def _train(config: Config, device: torch.device, task: Task[Any], logs: Path) -> None:
    run = build(config, read_manifest(config.data.train), device, task)
    status = "FAILED"
    try:
        with system_metrics.watched(run.folder.path):
            train(run, logs)
        status = "FINISHED"
    except Stopped:
        status = "KILLED"
        raise
    finally:
        run.checkpoints.close()
        run.log.close(status)


def _require_one_release() -> None:
    """Raise RunError on every rank where nodes differ in what they compute with; a collective."""
    nodes: dict[str, list[str]] = {}
    for node, release in comm.from_every_rank((platform.node(), _release())):
        nodes.setdefault(release, []).append(node)
    if len(nodes) > 1:
        seen = "; ".join(
            f"{release} on {', '.join(dict.fromkeys(names))}" for release, names in nodes.items()
        )
        raise RunError(
            "the nodes of this run have different releases", seen, "install the same on all of them"
        )


def _release() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed"))
    return f"spml-dist {__version__}, {packages}"
