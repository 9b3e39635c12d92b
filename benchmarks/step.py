"""Where the time of a training step goes: `python -m benchmarks.step --json OUT`.

The quickstart's network and batches (8 crops of 128 pixels) on one worker and on two, as `spml-dist train`
runs them under torchrun, in seconds a step of each phase; beside it the same network under plain DeepSpeed:
one batch, again and again, cross-entropy on its labelled pixels, torch's SGD. Both see the same two cores;
each figure is the median over the logged steps but the first. Words such as bank.candidates=recent,
model.backbone=resnet10t or stream.crop=160 change the training, and network and batch of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "quickstart.yaml"
EVERY = 5
PHASES = ("data", "forward", "loss", "backward", "optimizer", "bank")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--plain", nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.plain:
        plain(Path(args.plain[0]), Path(args.plain[1]), args.steps, args.overrides)
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "sample"
        _run("-m", "spml_dist", "pack", "sample", "--out", str(data), "--images", "64", "--val", "4")
        print("  ".join(f"{name:>9}" for name in ("workers", "way", "step", *PHASES)))
        for workers in (1, 2):
            spml = trained(data, Path(folder) / f"spml{workers}", workers, args.steps, args.overrides)
            out = Path(folder) / f"plain{workers}.json"
            words = ("-m", "benchmarks.step", "--steps", str(args.steps), "--plain", str(data), str(out))
            _run(*_torchrun(workers), *words, *args.overrides)
            for way, phases in (("spml", spml), ("plain", json.loads(out.read_text()))):
                row = {"workers": workers, "way": way, "step": sum(phases.values()), **phases}
                rows.append(row)
                cells = (f"{row.get(name, 0):.4f}" for name in ("step", *PHASES))
                print("  ".join(f"{cell:>9}" for cell in (workers, way, *cells)), flush=True)
    ratios = {str(ours["workers"]): ours["step"] / theirs["step"] for ours, theirs in _pairs(rows)}
    for workers, ratio in ratios.items():
        print(f"{workers} workers: a step takes {ratio:.2f} of plain cross-entropy's")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "ratio": ratios}, indent=2) + "\n")
    return 0


def trained(data: Path, output: Path, workers: int, steps: int, overrides: Sequence[str]) -> dict[str, float]:
    """Median seconds of each phase of a real training."""
    words = (
        *("-m", "spml_dist", "train", str(CONFIG), f"output={output}", "name=run"),
        *(f"data.train={data}/train", f"data.val={data}/val", f"tracking.uri=sqlite:///{output}/mlflow.db"),
        *(f"schedule.steps={steps}", "schedule.warmup=1", f"checkpoint.every={steps}"),
        *(f"tracking.every={EVERY}", "tracking.previews=0", "engine.device=cpu", *overrides),
    )
    _run(*_torchrun(workers), *words)
    entries = [json.loads(line) for line in (output / "run" / "metrics.jsonl").read_text().splitlines()]
    return {phase: statistics.median(entry[f"time/{phase}"] for entry in entries[2:-1]) for phase in PHASES}


def plain(data: Path, out: Path, steps: int, overrides: Sequence[str]) -> None:
    """The same network under DeepSpeed with nothing else around it; rank 0 writes seconds a phase."""
    import torch
    import torch.distributed as dist
    from torch.nn.functional import cross_entropy, interpolate

    from spml_dist.config import load
    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.model.segmenter import build
    from spml_dist.training import deepspeed_engine
    from spml_dist.training.build import training_stream
    from spml_dist.training.device import settle
    from spml_dist.training.task import dropout_seeds

    dist.init_process_group("gloo")
    words = ("engine.device=cpu", "model.classifier_detached=false", *overrides)
    config = load(CONFIG, [f"data.train={data}/train", *words])
    manifest = read_manifest(config.data.train)
    settle(config.engine, torch.device("cpu"))
    deepspeed_engine.prepare(torch.device("cpu"), print)
    import deepspeed

    model = build(config.model, len(manifest.classes), config.seed)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        config={"train_micro_batch_size_per_gpu": config.stream.batch // dist.get_world_size()},
    )
    (batch,), _ = next(training_stream(config, manifest).steps())
    images = batch.image.to(memory_format=torch.channels_last)
    target = torch.where(batch.semantic < len(manifest.classes), batch.semantic.long(), -100)
    seeds, marks = dropout_seeds(config.seed, batch), []
    for _ in range(steps):
        times = [time.perf_counter()]
        _, logits = engine(images, seeds)
        times.append(time.perf_counter())
        full = interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=False)
        loss = cross_entropy(full, target, ignore_index=-100)
        times.append(time.perf_counter())
        engine.backward(loss)
        times.append(time.perf_counter())
        engine.step()
        marks.append([b - a for a, b in pairwise([*times, time.perf_counter()])])
    if dist.get_rank() == 0:
        names = ("forward", "loss", "backward", "optimizer")
        columns = zip(*marks[EVERY:], strict=True)
        out.write_text(json.dumps(dict(zip(names, map(statistics.median, columns), strict=True))))
    dist.barrier()
    dist.destroy_process_group()


def _pairs(rows: list[dict]) -> list[tuple[dict, dict]]:
    """SPML's row and the plain one, for each number of workers."""
    return [(rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]


def _torchrun(workers: int) -> tuple[str, ...]:
    place = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    return ("-m", "torch.distributed.run", "--nproc-per-node", str(workers), *place)


def _run(*words: str) -> None:
    from spml_dist.cluster import WORKER_ENVIRONMENT

    environment = os.environ | WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
