"""The training loop of one rank: stream -> network -> losses -> optimiser -> bank, until the last step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spml_dist import comm
from spml_dist.errors import RunError, Stopped
from spml_dist.method.step import step_counts
from spml_dist.model import embedding, export, segmenter
from spml_dist.records import Batch, BatchSegments
from spml_dist.tensor_records import moved
from spml_dist.tracking.metrics_log import Stopwatch, memory_mb
from spml_dist.training import hang_watch, run_bank, stopping
from spml_dist.training.build import PRECISION, TrainingRun
from spml_dist.training.optimizer import learning_rate
from spml_dist.training.task import Outputs, StepContext


def train(run: TrainingRun, logs: Path) -> None:
    """Make the remaining steps, then export the network. Every rank makes the same collectives.

    logs: folder of this attempt's logs.
    """
    last, first = run.config.schedule.steps, run.stream.start_step + 1
    done, stopwatch = run.stream.start_step, Stopwatch(run.stream.start_step, run.device.type == "cuda")
    # A run that only lacks its export begins no stream, whose loader processes would decode for nothing.
    if done < last:
        with hang_watch.watched(logs, run.config.engine.patience, run.log.hang) as alive:
            done = _steps(run, first, last, stopwatch, alive)
    _export(run, done)


def _steps(
    run: TrainingRun, first: int, last: int, stopwatch: Stopwatch, alive: Callable[[int], None]
) -> int:
    """Make steps until the last one, and return its number. alive: is told of each. Raises Stopped."""
    for batches, state in run.stream.steps():
        stopwatch.phase("data")
        done = state["step"]
        alive(done - 1)
        saved = done % run.config.checkpoint.every == 0 or done == last
        logged = saved or done % run.config.tracking.every == 0 or done == first
        micro_losses = make_step(run, done - 1, batches, stopwatch, logged)
        stop = done < last and run.engine.finite_check.stop_requested()
        if run.engine.finite_check.write_failed():
            run.checkpoints.finish()  # raises what it was, on every rank
        if logged or stop:
            _require_finite(run)  # only finite numbers become a checkpoint
            _log(run, done, micro_losses, stopwatch)
        if saved or stop:
            alive(done)
            run.checkpoints.begin(run.engine, run.bank, state, run.encoder)
            stopwatch.phase("checkpoint")
        del batches, micro_losses  # a step's pixels are not kept through the next one's forward pass
        if stop or done == last:
            run.checkpoints.finish()
        if stop:
            raise Stopped(f"saved step {done} and stopped", None, "the same command goes on")
        if done == last:
            break
    return last


def _require_finite(run: TrainingRun) -> None:
    """Raise RunError on every rank for a number that is not, once the checkpoint on its way is whole."""
    try:
        run.engine.finite_check.require_finite()
    except RunError:
        run.checkpoints.finish()
        raise


def make_step(
    run: TrainingRun, step: int, batches: Sequence[Batch], stopwatch: Stopwatch, logged: bool
) -> list[Any]:
    """One optimiser step over this rank's micro-batches; afterwards the bank knows their segments.

    step: from 0; logged: whether it will be, so that the bank measures itself. Returns what each micro-batch
    came to. A collective.
    """
    batches = [moved(batch, run.device) for batch in batches]
    counts = _counts_together(run, batches)
    context = StepContext(run.config, run.bank, run.background, step, logged, stopwatch.phase, counts)
    # Once a step and rank: the ranks agree in the step's own all-reduce, and all of them stop together.
    stop_requested = stopping.save_requested(run.folder.path)
    run.engine.set_rate(learning_rate(step, run.config.optimizer.lr, run.config.schedule))
    micro_losses: list[Any] = []
    segments: list[tuple[Batch, BatchSegments]] = []
    for number, batch in enumerate(batches):
        outputs, losses = _micro_step(run, batch, context, stop_requested)
        micro_losses.append(losses)
        if losses.segments is not None:
            segments.append((batch, losses.segments))
        if number == 0:
            _preview(run, step + 1, batch, outputs, stopwatch)
    if run.encoder:
        # After the step: its activations are gone, and the next step meets vectors of its own encoder.
        run.encoder.update()
        segments = [(batch, run_bank.reembedded(run.encoder, batch, own)) for batch, own in segments]
        stopwatch.phase("encoder")
    # Once a step, after all micro-batches: what these are contrasted with is the bank before the step.
    run.bank.publish([own for _, own in segments], step)
    stopwatch.phase("bank")
    return micro_losses


def _counts_together(run: TrainingRun, batches: Sequence[Batch]) -> torch.Tensor | None:
    """What a step's micro-batches are divided by together, where they are not apart; a collective."""
    if run.config.engine.micro_batches == "apart" or len(batches) == 1:
        return None
    side = math.ceil(run.config.stream.crop / segmenter.GRID_STRIDE)
    return step_counts(batches, (side, side), run.config)


def _micro_step(
    run: TrainingRun, batch: Batch, context: StepContext, stop_requested: bool
) -> tuple[Outputs, Any]:
    """Forward, losses and backward of one micro-batch; the last one of a step moves the weights."""
    config, engine, phase = run.config, run.engine, context.phase
    images = batch.image.to(PRECISION[config.engine.precision], memory_format=torch.channels_last)
    outputs = engine(*run.task.inputs(images, batch, config))
    phase("forward")
    losses = run.task.losses(outputs, batch, context)
    phase("loss")
    engine.finite_check.observe(losses.total)
    engine.backward(losses.total)
    engine.finite_check.agree(context.step, batch.keys, stop_requested, run.checkpoints.failed())
    phase("backward")
    engine.step()
    phase("optimizer")
    return outputs, losses


def _preview(run: TrainingRun, done: int, batch: Batch, outputs: Outputs, stopwatch: Stopwatch) -> None:
    """Draw the first images of rank 0's batch, where that is due."""
    tracking = run.config.tracking
    due = done % tracking.previews_every == 0 or done == run.config.schedule.steps
    if not (run.task.preview and tracking.previews and due and comm.rank() == 0 and len(batch)):
        return
    detached = (output.detach() for output in outputs)
    path = run.folder.preview(done)
    facts = (run.classes, run.background, run.stream.normalisation)
    run.task.preview(path, *detached, batch, run.config, *facts)
    stopwatch.phase("preview")


def _log(run: TrainingRun, done: int, micro_losses: list[Any], stopwatch: Stopwatch) -> None:
    """A step in numbers; a collective."""
    config, (phases, seconds) = run.config, stopwatch.lap(done)
    numbers = run.task.summary(micro_losses, config)
    if config.stream.skip_corrupt:
        skipped = comm.sum_all(torch.tensor(run.stream.skipped.total(), device=run.device))
        numbers["stream/skipped"] = int(skipped)
    numbers |= run.engine.clipping.report()
    numbers |= run.bank.report(done)
    # The first step pays for starting up and says nothing about the rest.
    starting = done == run.stream.start_step + 1
    run.log.step(
        {
            "step": done,
            **numbers,
            "lr": learning_rate(done - 1, config.optimizer.lr, config.schedule),
            "images_per_s": config.stream.batch / seconds,
            "workers": comm.world(),
            **{f"time/{phase}": spent for phase, spent in phases.items()},
            "memory_mb": memory_mb(),
            "eta_s": None if starting else (config.schedule.steps - done) * seconds,
        }
    )
    stopwatch.phase("logging")


def _export(run: TrainingRun, done: int) -> None:
    """Write RUN/export; a collective."""
    weights = run.engine.state()["weights"]
    if comm.rank() == 0:
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        if run.config.model.embedding:  # as it was, also where the network computes in 16 bits
            weights |= embedding.tensors(Path(run.config.model.embedding))
        folder, network = run.folder.export, run.task.network
        facts = (run.config.model, run.classes, run.background, done, network, run.stream.normalisation)
        export.save(weights, folder, *facts)
        run.log.line(f"exported the network to {folder}")
    comm.barrier()
