"""What every training process runs, whoever launched it."""

from __future__ import annotations

import os

import torch

from spml_dist.config import Config
from spml_dist.engine.loop import start, train
from spml_dist.shards.manifest import read_manifest


def work(payload: dict) -> None:
    """Train one rank to the end. payload: {"config": the resolved configuration as plain data}.

    The process group exists already. Raises SpmlError for what a user can mend.
    """
    config = Config.model_validate(payload["config"], strict=False)
    device = _device(config)
    torch.set_num_threads(config.engine.threads or max(1, (os.cpu_count() or 1) // config.engine.workers))
    run = start(config, read_manifest(config.data.train), device)
    status = "FAILED"
    try:
        train(run)
        status = "FINISHED"
    finally:
        if run.tracker:
            said = run.tracker.finish(status)
            if said["unsent"]:
                run.journal.say(f"MLflow did not take {said['unsent']} records; metrics.jsonl has them all")
            run.journal.close()


def _device(config: Config) -> torch.device:
    if config.engine.device == "cpu" or (config.engine.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))
