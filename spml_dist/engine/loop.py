"""The training loop of one rank: stream -> network -> step -> DeepSpeed -> bank, until the last step."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.recent import RecentBank, concatenate
from spml_dist.config import Config, flatten
from spml_dist.engine import checkpoint, journal, preview, zero
from spml_dist.engine.optimizer import learning_rate
from spml_dist.engine.step import TERMS, StepLosses, losses
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
    log = journal.Journal(folder) if comm.rank() == 0 else None
    zero.prepare(device, log.say if log else lambda text: None)
    model = build(config.model, len(manifest.classes), config.seed).to(device)
    wrapped = zero.engine(model, config)
    bank, state = RecentBank(config.bank.steps), None
    last = checkpoint.latest(folder / "checkpoints")
    if last is not None:
        state = checkpoint.restore(last, wrapped, bank)
        if log:
            journal.truncate(folder / "metrics.jsonl", state["step"])
            log = journal.Journal(folder)
            log.say(f"resumed from {last.name}")
    tracker = _tracker(config, folder) if comm.rank() == 0 else None
    stream = _stream(config, manifest, state)
    return Run(config, folder, manifest, device, wrapped, bank, stream, log, tracker)


def train(run: Run) -> None:
    """Run the remaining steps, then export the network. Every rank makes the same collectives."""
    steps, every = run.config.schedule.steps, run.config.tracking.every
    watch, began, first = journal.Stopwatch(), time.perf_counter(), run.stream.start_step
    state = {"step": first}
    if first < steps:
        for batches, state in run.stream:
            step = state["step"] - 1
            watch.phase("data")
            parts = _optimise(run, step, batches, watch)
            if state["step"] % every == 0 or state["step"] in (first + 1, steps):
                done = state["step"] - first
                _log(run, state["step"], parts, watch.lap(), (time.perf_counter() - began) / done)
                watch.phase("logging")
            if state["step"] % run.config.checkpoint.every == 0 or state["step"] == steps:
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


def _log(run: Run, step: int, parts: list[StepLosses], spent: dict, seconds_per_step: float) -> None:
    """A collective: the terms over all ranks; a loss that is not finite stops every rank."""
    config = run.config
    ours = torch.stack(
        [
            torch.cat([p.values, p.without_positive.to(p.values), p.values.new_tensor([p.pixels])])
            for p in parts
        ]
    )
    everywhere = comm.sum_all(ours.double().sum(dim=0)).tolist()
    share = len(parts) * (comm.world() if config.loss.reduction == "per_rank" else 1)
    terms = {
        name: value / share
        for name, value in zip(TERMS, everywhere[:4], strict=True)
        if _weight(config, name)
    }
    loss = sum(_weight(config, name) * value for name, value in terms.items())
    if run.journal:
        total = max(sum(spent.values()), 1e-9)
        logged = max(1, round(total / seconds_per_step))
        entry = {
            "step": step,
            "loss": loss,
            **{f"loss/{name}": value for name, value in terms.items()},
            "lr": learning_rate(step - 1, config.optimizer.lr, config.schedule),
            "images_per_s": config.stream.batch / seconds_per_step,
            **{f"time/{phase}": seconds / logged for phase, seconds in spent.items()},
            "memory_mb": journal.memory_mb(),
            "pixels": everywhere[7],
            "pixels_without_positive": sum(everywhere[4:7]),
            **{
                f"without_positive/{name}": n
                for name, n in zip(TERMS[:3], everywhere[4:7], strict=True)
                if name in terms
            },
            "candidates": parts[-1].candidates,
            "bank_rows": len(run.bank),
            "eta_s": (config.schedule.steps - step) * seconds_per_step,
        }
        run.journal.step(entry)
        note_tracking(run)
        run.tracker.metrics(step, {f"train/{k}": v for k, v in entry.items() if k != "step"})
    if not torch.isfinite(torch.tensor(loss)):
        raise RunError(
            f"loss of step {step} is not finite",
            loss,
            "lower optimizer.lr, or start from the last checkpoint",
        )


def _weight(config: Config, term: str) -> float:
    return config.loss.cross_entropy if term == "cross_entropy" else getattr(config.relations, term).weight


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


def _tracker(config: Config, folder: Path) -> Tracker:
    """MLflow's run for this training: the one that RUN/mlflow.json names, or a new one."""
    note = folder / "mlflow.json"
    known = json.loads(note.read_text()).get("run_id") if note.exists() else None
    tracking = config.tracking
    tracker = Tracker(tracking.uri, tracking.experiment, config.name, known, flatten(config))
    tracker.artifact(folder / "config.yaml")
    return tracker


def note_tracking(run: Run) -> None:
    """Keep in RUN/mlflow.json which MLflow run this is, so that a restart continues it."""
    note = run.folder / "mlflow.json"
    known = {"uri": run.config.tracking.uri, "run_id": run.tracker.run_id}
    if run.tracker.run_id and not (note.exists() and json.loads(note.read_text()) == known):
        aside = note.with_suffix(".tmp")
        aside.write_text(json.dumps(known) + "\n")
        os.replace(aside, note)


def _export(run: Run, step: int) -> None:
    state = zero.full_state(run.wrapped, run.config.engine.zero_stage)
    if comm.rank() == 0:
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        export.save(state, run.folder / "export", run.config.model, run.classes, run.background, step)
        run.journal.say(f"exported the network to {run.folder / 'export'}")
    comm.barrier()
