"""What checkpoints cost the steps between them: `python -m benchmarks.checkpoints CONFIG [key=value ...]`.

Pairs of blocks of steps, one with a checkpoint begun at its start and one without, in turn; under torchrun on
its workers. Time of a processor is told beside the clock's, which others on the machine disturb.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spml_dist import comm
from spml_dist.config import Config, load
from spml_dist.config.models import CheckpointConfig
from spml_dist.data.format.manifest import read_manifest
from spml_dist.tracking.metrics_log import Stopwatch
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.build import TrainingRun, build
from spml_dist.training.loop import make_step

Seconds = tuple[float, float]
"""of the clock, and of this process's threads"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoints", description=__doc__.partition(":")[0]
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--pairs", type=int, default=6, metavar="N", help="blocks of each kind")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="steps of a block")
    parser.add_argument("--warmup", type=int, default=20, metavar="N", help="steps before the first block")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        comm.join("gloo")
    with tempfile.TemporaryDirectory() as own:
        folder = comm.from_rank_zero(own)
        quiet = ("tracking.previews=0", f"tracking.uri=sqlite:///{folder}/mlflow.db", f"output={folder}")
        config = absolute(load(args.config, [*args.overrides, *quiet]), Path.cwd())
        row = measured(config, args.pairs, args.steps, args.warmup)
    if comm.rank() == 0:
        print(table(row))
        if args.json:
            args.json.write_text(json.dumps(row, indent=2, sort_keys=True) + "\n")
    if comm.grouped():
        comm.leave()
    return 0


def measured(config: Config, pairs: int, steps: int, warmup: int) -> dict[str, Any]:
    """Medians over the pairs, of this rank."""
    import torch

    (Path(config.output) / config.name).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.engine.threads or 1)
    run = build(config, read_manifest(config.data.train), torch.device("cpu"))
    made = _steps(run)
    _block(made, warmup)
    without, beside, waits = list[Seconds](), list[Seconds](), list[float]()
    for _ in range(pairs):
        state, alone = _block(made, steps)
        without.append(alone)
        began = _now()
        run.checkpoints.begin(run.engine, run.bank, state, run.encoder)
        waits.append(_now()[0] - began[0])
        _block(made, steps)
        run.checkpoints.finish()
        beside.append(tuple(now - then for now, then in zip(_now(), began, strict=True)))
    newest = max((run.folder.checkpoints).glob("step_*"))
    every = CheckpointConfig().every
    step = statistics.median(clock for clock, _ in without) / steps
    cpu = statistics.median(cpu for _, cpu in without) / steps
    more = statistics.median(b[1] - a[1] for a, b in zip(without, beside, strict=True))
    run.checkpoints.close()
    return {
        "workers": comm.world(),
        "mb": sum(file.stat().st_size for file in newest.rglob("*") if file.is_file()) / 1e6,
        "step_s": step,
        "step_cpu_s": cpu,
        "wait_s": statistics.median(waits),
        "checkpoint_cpu_s": more,
        "every": every,
        "overhead_percent": 100 * more / (every * cpu),
    }


def _steps(run: TrainingRun) -> Iterator[dict[str, Any]]:
    """Make steps for ever; where the stream is after each."""
    stopwatch = Stopwatch(0)
    for batches, state in run.stream.steps():
        make_step(run, state["step"] - 1, batches, stopwatch, False)
        yield state


def _block(made: Iterator[dict[str, Any]], steps: int) -> tuple[dict[str, Any], Seconds]:
    began, state = _now(), dict[str, Any]()
    for _ in range(steps):
        state = next(made)
    clock, cpu = (now - then for now, then in zip(_now(), began, strict=True))
    return state, (clock, cpu)


def _now() -> Seconds:
    return time.perf_counter(), time.process_time()


def table(row: dict[str, Any]) -> str:
    head = "workers", "checkpoint", "step", "of a processor", "a step waits", "processor", "overhead"
    cells = (
        str(row["workers"]),
        f"{row['mb']:.0f} MB",
        f"{row['step_s']:.2f} s",
        f"{row['step_cpu_s']:.2f} s",
        f"{1000 * row['wait_s']:.0f} ms",
        f"{row['checkpoint_cpu_s']:.2f} s",
        f"{row['overhead_percent']:.2f} % at every {row['every']} steps",
    )
    return "\n".join((f"| {' | '.join(head)} |", "|" + "---:|" * len(head), f"| {' | '.join(cells)} |"))


if __name__ == "__main__":
    raise SystemExit(main())
