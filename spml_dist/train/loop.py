"""The training loop of one rank: stream -> network -> step -> DeepSpeed -> bank, until the last step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from spml_dist import comm
from spml_dist.bank.recent import RecentBank
from spml_dist.bank.sharded import ShardedBank
from spml_dist.config import Config, flatten
from spml_dist.config.models import ModelConfig
from spml_dist.data.format.manifest import Manifest
from spml_dist.data.stream.loader import Stream
from spml_dist.data.stream.shard_cache import Cache
from spml_dist.errors import ConfigError, Stopped
from spml_dist.model import export
from spml_dist.records import IMAGENET, BankCandidates, Batch, Candidates, Normalisation
from spml_dist.tensor_records import moved
from spml_dist.tracking import metrics_log
from spml_dist.tracking.mlflow_sync import Mirror
from spml_dist.train import checkpoint, deepspeed_engine, label_summary, momentum_encoder, run_bank, stopping
from spml_dist.train.deepspeed_engine import Zero
from spml_dist.train.momentum_encoder import SlowEncoder
from spml_dist.train.optimizer import learning_rate
from spml_dist.train.task import SEGMENTER, Part, Task
from spml_dist.train.torch_engine import Plain

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass
class Run:
    """Everything that one rank of a training run holds."""

    config: Config
    folder: Path
    manifest: Manifest
    device: torch.device
    engine: Zero | Plain
    """the network and its optimiser"""
    slow: SlowEncoder | None
    """the momentum encoder, where `bank.encoder_momentum` asks for one"""
    bank: RecentBank | ShardedBank
    stream: Stream
    journal: metrics_log.Journal | None
    """rank 0's"""
    tracker: Mirror | None
    """rank 0's"""
    task: Task = SEGMENTER

    @property
    def background(self) -> int | None:
        return self.manifest.background

    @property
    def classes(self) -> list[str]:
        return list(self.manifest.classes)


def start(config: Config, manifest: Manifest, device: torch.device, task: Task = SEGMENTER) -> Run:
    """Build or resume a run; a collective."""
    folder = Path(config.output) / config.name
    last = checkpoint.latest(folder / "checkpoints")
    log = _journal(folder, last) if comm.rank() == 0 else None
    saved = checkpoint.read(last) if last else None
    dtype = torch.float64 if config.engine.precision == "float64" else torch.float32
    model = task.build(_to_build(config.model, saved), len(manifest.classes), config.seed).to(device, dtype)
    _require_one_origin(model.origin)
    encoder = momentum_encoder.build(
        config, model, PRECISION[config.engine.precision], saved and saved.engine
    )
    if comm.grouped() and config.engine.precision != "float64":
        deepspeed_engine.prepare(device, log.say if log else lambda text: None)
        engine = Zero(model, config, saved and saved.engine)
    else:
        engine = Plain(model, config, saved and saved.engine)
    bank = run_bank.build(config, len(manifest.classes), device, manifest.classes)
    if last:
        checkpoint.restore_bank(bank, last, device)
    stream = _stream(config, manifest, saved and saved.stream, model.normalisation)
    if log:
        if not saved:
            log.say(f"the backbone starts from {model.origin}")
        label_summary.write(folder, manifest, config.relations, task.network)
    tracker = _tracker(config, folder, log) if log else None
    return Run(config, folder, manifest, device, engine, encoder, bank, stream, log, tracker, task)


def train(run: Run) -> None:
    """Run the remaining steps, then export the network. Every rank makes the same collectives."""
    steps, every = run.config.schedule.steps, run.config.tracking.every
    first = run.stream.start_step
    watch, state = metrics_log.Stopwatch(first), {"step": first}
    if first < steps:
        for batches, state in run.stream:
            watch.phase("data")
            done = state["step"]
            due = done % run.config.checkpoint.every == 0 or done == steps
            logged = due or done % every == 0 or done == first + 1
            parts = _optimise(run, done - 1, batches, watch, logged)
            if logged:
                run.engine.guard.check()  # before anything is saved: only finite numbers become a checkpoint
                _log(run, done, parts, *watch.lap(done))
                watch.phase("logging")
                stop = done < steps and comm.from_rank_zero(stopping.requested(run.folder))
                if due or stop:
                    folder = run.folder / "checkpoints"
                    checkpoint.save(run.engine, run.bank, state, run.config, folder, run.slow)
                    watch.phase("checkpoint")
                if stop:
                    raise Stopped(f"saved step {done} and stopped", None, "the same command goes on")
            if done == steps:
                break
    _export(run, state["step"])


def _optimise(
    run: Run, step: int, batches: list[Batch], watch: metrics_log.Stopwatch, logged: bool
) -> list[Part]:
    """One optimiser step over this rank's micro-batches; afterwards the bank knows their segments."""
    config, task, parts, ask = run.config, run.task, [], run_bank.recall(run.bank, step, logged)

    def recall(rows: Candidates) -> BankCandidates:
        watch.phase("loss")
        answer = ask(rows)
        watch.phase("bank")
        return answer

    run.engine.set_rate(learning_rate(step, config.optimizer.lr, config.schedule))
    on_device = [moved(batch, run.device) for batch in batches]
    for number, batch in enumerate(on_device):
        images = batch.image.to(PRECISION[config.engine.precision], memory_format=torch.channels_last)
        outputs = run.engine(*task.inputs(images, batch, config))
        watch.phase("forward")
        part = task.losses(outputs, batch, recall, config, run.background)
        watch.phase("loss")
        run.engine.guard.see(part.total)
        run.engine.backward(part.total)
        run.engine.guard.agree(step, batch.keys)
        watch.phase("backward")
        run.engine.step()
        watch.phase("optimizer")
        parts.append(part)
        if task.preview and number == 0 and _previewed(config, step) and comm.rank() == 0 and len(batch):
            path = run.folder / "previews" / f"step_{step + 1:06d}.png"
            seen = (output.detach() for output in outputs)
            task.preview(path, *seen, batch, config, run.classes, run.background, run.stream.normalisation)
            run.tracker.notice()
            watch.phase("preview")
    remembered = parts
    if run.slow:
        # After the step: its activations are gone, and the next step meets vectors of its own encoder.
        run.slow.update()
        remembered = run_bank.reembedded(run.slow, on_device, parts)
        watch.phase("encoder")
    run_bank.publish(run.bank, on_device, remembered, step)
    watch.phase("bank")
    return parts


def _previewed(config: Config, step: int) -> bool:
    due = (step + 1) % config.tracking.previews_every == 0 or step + 1 == config.schedule.steps
    return config.tracking.previews > 0 and due


def _log(run: Run, step: int, parts: list[Part], phases: dict, seconds: float) -> None:
    """A collective. seconds: of a step; phases: of its parts."""
    config, said = run.config, run.task.summary(parts, run.config)
    if config.stream.skip_corrupt:
        skipped = comm.sum_all(torch.tensor(run.stream.skipped.total(), device=run.device))
        said["stream/skipped"] = int(skipped)
    said |= run.engine.clipping.report()
    said |= run_bank.report(run.bank, step)
    if run.journal:
        entry = {
            "step": step,
            **said,
            "lr": learning_rate(step - 1, config.optimizer.lr, config.schedule),
            "images_per_s": config.stream.batch / seconds,
            "workers": comm.world(),
            **{f"time/{phase}": spent for phase, spent in phases.items()},
            "memory_mb": metrics_log.memory_mb(),
            # The first step pays for starting up and says nothing about the rest.
            "eta_s": None if step == run.stream.start_step + 1 else (config.schedule.steps - step) * seconds,
        }
        run.journal.step(entry)
        run.tracker.notice()


def _to_build(model: ModelConfig, saved: checkpoint.Saved | None) -> ModelConfig:
    """What a run resumes from holds its weights: those it started from need not be there any more."""
    return model.model_copy(update={"weights": None, "pretrained": False}) if saved else model


def _require_one_origin(origin: str) -> None:
    """A collective. Raises ConfigError on every rank where some have started from other weights."""
    origins = dict.fromkeys(comm.from_every_rank(origin))
    if len(origins) > 1:
        remedy = "give every machine a network or none, or name a file in model.weights"
        raise ConfigError("model.pretrained gives the workers different weights", ", ".join(origins), remedy)


def _stream(
    config: Config, manifest: Manifest, state: dict | None, normalisation: Normalisation = IMAGENET
) -> Stream:
    return Stream(
        config.data.train,
        num_classes=len(manifest.classes),
        batch=config.stream.batch,
        crop=config.stream.crop,
        scale=config.stream.scale,
        mirror=config.stream.mirror,
        mirror_swaps=config.stream.mirror_swaps,
        window_shards=config.stream.window_shards,
        seed=config.seed,
        loader_processes=config.stream.loader_processes,
        rank=comm.rank(),
        world=comm.world(),
        accumulation=config.engine.accumulation,
        skip_corrupt=config.stream.skip_corrupt,
        cache=Cache(config.stream.cache, config.stream.cache_gb, config.stream.retry_seconds),
        normalisation=normalisation,
        start_state=state,
    )


def _journal(folder: Path, last: Path | None) -> metrics_log.Journal:
    """The run's journal, without the steps that are about to be made again."""
    metrics_log.truncate(folder / "metrics.jsonl", checkpoint.step_of(last) if last else 0)
    log = metrics_log.Journal(folder)
    if last:
        log.say(f"resuming from {last.name}")
    return log


def _tracker(config: Config, folder: Path, log: metrics_log.Journal) -> Mirror:
    """MLflow's run for this training: the one that RUN/mlflow.json names, or a new one."""
    tracking = config.tracking
    return Mirror(folder, tracking.uri, tracking.experiment, config.name, flatten(config), log.say)


def _export(run: Run, step: int) -> None:
    weights = run.engine.state()["weights"]
    if comm.rank() == 0:
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        folder, network = run.folder / "export", run.task.network
        facts = (run.config.model, run.classes, run.background, step, network, run.stream.normalisation)
        export.save(weights, folder, *facts)
        run.journal.say(f"exported the network to {folder}")
    comm.barrier()
