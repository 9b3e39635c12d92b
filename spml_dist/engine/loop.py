"""The training loop of one rank: stream -> network -> step -> DeepSpeed -> bank, until the last step."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.recent import RecentBank, concatenate
from spml_dist.config import Config, flatten
from spml_dist.engine import checkpoint, journal, preview, zero
from spml_dist.engine.optimizer import learning_rate
from spml_dist.engine.step import StepLosses, losses
from spml_dist.engine.summary import summary
from spml_dist.engine.tracking import Tracker
from spml_dist.errors import RunError
from spml_dist.model import export
from spml_dist.model.segmenter import build
from spml_dist.schema import Batch
from spml_dist.shards.manifest import Manifest
from spml_dist.stream.loader import Stream


@dataclass
class Run:
    """Everything that one rank of a training run holds."""

    config: Config
    folder: Path
    manifest: Manifest
    device: torch.device
    wrapped: object
    """the DeepSpeed engine"""
    bank: RecentBank
    stream: Stream
    journal: journal.Journal | None
    """rank 0's"""
    tracker: Tracker | None
    """rank 0's"""

    @property
    def background(self) -> int | None:
        return self.manifest.background

    @property
    def classes(self) -> list[str]:
        return list(self.manifest.classes)


def start(config: Config, manifest: Manifest, device: torch.device) -> Run:
    """Build or resume a run; a collective."""
    folder = Path(config.output) / config.name
    last = checkpoint.latest(folder / "checkpoints")
    log = _journal(folder, last) if comm.rank() == 0 else None
    zero.prepare(device, log.say if log else lambda text: None)
    model = build(config.model, len(manifest.classes), config.seed).to(device)
    wrapped = zero.engine(model, config)
    bank = RecentBank(config.bank.steps)
    state = checkpoint.restore(last, wrapped, bank) if last else None
    stream = _stream(config, manifest, state)
    tracker = _tracker(config, folder) if comm.rank() == 0 else None
    return Run(config, folder, manifest, device, wrapped, bank, stream, log, tracker)


def train(run: Run) -> None:
    """Run the remaining steps, then export the network. Every rank makes the same collectives."""
    steps, every = run.config.schedule.steps, run.config.tracking.every
    first = run.stream.start_step
    watch, state = journal.Stopwatch(first), {"step": first}
    if first < steps:
        for batches, state in run.stream:
            step = state["step"] - 1
            watch.phase("data")
            parts = _optimise(run, step, batches, watch)
            saved = state["step"] % run.config.checkpoint.every == 0 or state["step"] == steps
            # What is saved is logged first: a loss that is not finite never becomes a checkpoint.
            if saved or state["step"] % every == 0 or state["step"] == first + 1:
                _log(run, state["step"], parts, *watch.lap(state["step"]))
                watch.phase("logging")
            if saved:
                checkpoint.save(run.wrapped, run.bank, state, run.config, run.folder / "checkpoints")
                watch.phase("checkpoint")
            if state["step"] == steps:
                break
    _export(run, state["step"])


def _optimise(run: Run, step: int, batches: list[Batch], watch: journal.Stopwatch) -> list[StepLosses]:
    """One optimiser step over this rank's micro-batches; afterwards the bank knows their segments."""
    config, parts = run.config, []
    zero.set_rate(run.wrapped, learning_rate(step, config.optimizer.lr, config.schedule))
    for number, batch in enumerate(batches):
        batch = _moved(batch, run.device)
        images = batch.image.to(memory_format=torch.channels_last)
        if config.engine.precision == "bfloat16":
            images = images.bfloat16()
        raw, logits = run.wrapped(images, _dropout_seeds(config.seed, batch))
        watch.phase("forward")
        first_image = step * config.stream.batch
        part = losses(raw, logits, batch, run.bank.rows(), config, first_image)
        watch.phase("loss")
        run.wrapped.backward(part.total)
        watch.phase("backward")
        run.wrapped.step()
        watch.phase("optimizer")
        parts.append(part)
        if number == 0 and _previewed(config, step) and comm.rank() == 0 and len(batch):
            path = run.folder / "previews" / f"step_{step + 1:06d}.png"
            preview.write(path, raw.detach(), logits.detach(), batch, config, run.classes, run.background)
            run.tracker.artifact(path, "previews")
            watch.phase("preview")
    rows = [part.rows for part in parts if part.rows is not None]
    if rows:
        run.bank.publish(concatenate(rows))
    watch.phase("bank")
    return parts


def _moved(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    values = {
        k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in vars(batch).items()
    }
    return Batch(**values)


def _dropout_seeds(seed: int, batch: Batch) -> list[int]:
    """A seed for each image from (seed, epoch, sample key)."""
    texts = (f"dropout {seed} {batch.epoch} {key}" for key in batch.keys)
    return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) for text in texts]


def _previewed(config: Config, step: int) -> bool:
    due = (step + 1) % config.tracking.previews_every == 0 or step + 1 == config.schedule.steps
    return config.tracking.previews > 0 and due


def _log(run: Run, step: int, parts: list[StepLosses], phases: dict, seconds: float) -> None:
    """A collective; a loss that is not finite stops every rank. seconds: of a step; phases: of its parts."""
    config, said = run.config, summary(parts, run.config)
    if run.journal:
        entry = {
            "step": step,
            **said,
            "bank_rows": len(run.bank),
            "lr": learning_rate(step - 1, config.optimizer.lr, config.schedule),
            "images_per_s": config.stream.batch / seconds,
            **{f"time/{phase}": spent for phase, spent in phases.items()},
            "memory_mb": journal.memory_mb(),
            # The first step pays for starting up and says nothing about the rest.
            "eta_s": None if step == run.stream.start_step + 1 else (config.schedule.steps - step) * seconds,
        }
        run.journal.step(entry)
        numbers = {f"train/{k}": v for k, v in entry.items() if k != "step" and v is not None}
        run.tracker.metrics(step, numbers)
    if not math.isfinite(said["loss"]):
        remedy = "lower optimizer.lr, and give another name="
        raise RunError(f"loss of step {step} is not finite", said["loss"], remedy)


def _stream(config: Config, manifest: Manifest, state: dict | None) -> Stream:
    return Stream(
        config.data.train,
        num_classes=len(manifest.classes),
        batch=config.stream.batch,
        crop=config.stream.crop,
        scale=config.stream.scale,
        mirror=config.stream.mirror,
        window_shards=config.stream.window_shards,
        seed=config.seed,
        loader_processes=config.stream.loader_processes,
        rank=comm.rank(),
        world=comm.world(),
        accumulation=config.engine.accumulation,
        start_state=state,
    )


def _journal(folder: Path, last: Path | None) -> journal.Journal:
    """The run's journal, without the steps that are about to be made again."""
    journal.truncate(folder / "metrics.jsonl", checkpoint.step_of(last) if last else 0)
    log = journal.Journal(folder)
    if last:
        log.say(f"resuming from {last.name}")
    return log


def _tracker(config: Config, folder: Path) -> Tracker:
    """MLflow's run for this training: the one that RUN/mlflow.json names, or a new one."""
    note = folder / "mlflow.json"
    known = json.loads(note.read_text()).get("run_id") if note.exists() else None
    tracking = config.tracking

    def keep(run_id: str) -> None:
        aside = note.with_suffix(".tmp")
        aside.write_text(json.dumps({"uri": tracking.uri, "run_id": run_id}) + "\n")
        os.replace(aside, note)

    tracker = Tracker(tracking.uri, tracking.experiment, config.name, known, flatten(config), keep)
    tracker.artifact(folder / "config.yaml")
    return tracker


def _export(run: Run, step: int) -> None:
    state = zero.full_state(run.wrapped, run.config.engine.zero_stage)
    if comm.rank() == 0:
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        export.save(state, run.folder / "export", run.config.model, run.classes, run.background, step)
        run.journal.say(f"exported the network to {run.folder / 'export'}")
    comm.barrier()
