"""A training run put together, new or from its last checkpoint, before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.config.models import ModelConfig
from spml_dist.data.format.manifest import Manifest
from spml_dist.data.stream.loader import Stream
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import ConfigError, SpmlError
from spml_dist.model import compiled, embedding
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import IMAGENET, Normalisation, SegmentBank
from spml_dist.run_folder import RunFolder
from spml_dist.training import (
    checkpoint,
    checkpoint_copies,
    deepspeed_engine,
    label_summary,
    momentum_encoder,
    run_bank,
)
from spml_dist.training.checkpoint_writer import CheckpointWriter
from spml_dist.training.deepspeed_engine import DeepSpeedEngine
from spml_dist.training.engine import Engine, EngineState
from spml_dist.training.momentum_encoder import MomentumEncoder
from spml_dist.training.run_log import RunLog
from spml_dist.training.task import SEGMENTER, Task
from spml_dist.training.torch_engine import TorchEngine

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass
class TrainingRun:
    """Everything that one rank of a training run holds."""

    config: Config
    folder: RunFolder
    manifest: Manifest
    """of data.train"""
    device: torch.device
    engine: Engine
    """the network and its optimiser"""
    encoder: MomentumEncoder | None
    """the momentum encoder, where `bank.encoder_momentum` asks for one"""
    bank: SegmentBank
    stream: Stream
    log: RunLog
    checkpoints: CheckpointWriter
    task: Task[Any] = SEGMENTER

    @property
    def background(self) -> int | None:
        return self.manifest.background

    @property
    def classes(self) -> list[str]:
        return list(self.manifest.classes)


def build(
    config: Config, manifest: Manifest, device: torch.device, task: Task[Any] = SEGMENTER
) -> TrainingRun:
    """Build or resume a run; a collective. manifest: of data.train.

    Raises ConfigError for a network that cannot be built, RunError for a checkpoint that cannot be read or
    belongs to another bank or other data.
    """
    folder = RunFolder(Path(config.output) / config.name)
    fetched = _fetched(config, folder)
    last = checkpoint.latest(folder.checkpoints)
    log = RunLog(folder, checkpoint.step_of(last) if last else 0)
    if last:
        log.line(f"resuming from {last.name}" + (f", of {config.checkpoint.remote}" if fetched else ""))
    saved = checkpoint.read(last) if last else None
    engine_state, stream_state = (saved.engine, saved.stream) if saved else (None, None)

    dtype = torch.float64 if config.engine.precision == "float64" else torch.float32
    model = task.build(_to_build(config.model, saved), len(manifest.classes), config.seed)
    segmenter = cast(Segmenter, model)  # or a CAM classifier, whose weights have an origin too
    if config.model.embedding:
        embedding.adopt(segmenter, config.model)
    model = model.to(device, dtype)
    if config.engine.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _require_one_origin(segmenter.origin)
    if not saved:
        log.line(f"the backbone starts from {segmenter.origin}")
    # Before the engine, which casts the network it is given and hooks into it. Only a segmenter has one: an
    # experiment of CAM keeps no bank that its vectors could go to.
    encoder = momentum_encoder.build(config, segmenter, PRECISION[config.engine.precision], engine_state)
    trouble = compiled.compile_parts(model) if config.engine.compile else None
    if trouble:
        log.line(f"engine.compile is left out: {trouble}")
    engine = _engine(model, config, engine_state, log)
    bank = run_bank.build(config, len(manifest.classes), device, manifest.classes)
    if last:
        bank.restore(last / checkpoint.BANK)
    pinned = device.type == "cuda"
    stream = training_stream(config, manifest, stream_state, segmenter.normalisation, pinned)
    if comm.rank() == 0:
        label_summary.write(folder.path, manifest, config.relations, task.network)
    log.track(folder, config)
    checkpoints = CheckpointWriter(folder.checkpoints, config, last, _copies(config, folder, log))
    return TrainingRun(
        config, folder, manifest, device, engine, encoder, bank, stream, log, checkpoints, task
    )


def _fetched(config: Config, folder: RunFolder) -> bool:
    """Whether the run goes on from a checkpoint that was kept elsewhere; a collective. What cannot be fetched
    is raised on every rank."""
    found, trouble = None, None
    if config.checkpoint.remote and comm.rank() == 0:
        try:
            found = checkpoint_copies.fetch(config.checkpoint.remote, folder)
        except SpmlError as error:
            trouble = error
    comm.agree(trouble)
    return found is not None


def _copies(config: Config, folder: RunFolder, log: RunLog) -> checkpoint_copies.CheckpointCopies | None:
    settings = config.checkpoint
    if not settings.remote or comm.rank() != 0:
        return None
    return checkpoint_copies.CheckpointCopies(settings.remote, folder, settings.keep, log.line)


def _to_build(model: ModelConfig, saved: checkpoint.Checkpoint | None) -> ModelConfig:
    """A checkpoint holds all weights: those that the run started from need not be there any more. A finished
    embedding has its own."""
    given = saved or model.embedding
    return model.model_copy(update={"weights": None, "pretrained": False}) if given else model


def _require_one_origin(origin: str) -> None:
    """A collective. Raises ConfigError on every rank where some have started from other weights."""
    origins = dict.fromkeys(comm.from_every_rank(origin))
    if len(origins) > 1:
        remedy = "give every machine a network or none, or name a file in model.weights"
        raise ConfigError("model.pretrained gives the workers different weights", ", ".join(origins), remedy)


def _engine(model: nn.Module, config: Config, state: EngineState | None, log: RunLog) -> Engine:
    # DeepSpeed knows no float64, and needs a process group.
    if comm.grouped() and config.engine.precision != "float64":
        deepspeed_engine.prepare(next(model.parameters()).device, log.line)
        return DeepSpeedEngine(model, config, state)
    return TorchEngine(model, config, state)


def training_stream(
    config: Config,
    manifest: Manifest,
    state: dict[str, Any] | None = None,
    normalisation: Normalisation = IMAGENET,
    pinned: bool = False,
) -> Stream:
    """This rank's part of a training's batches. state: where it goes on; None = the beginning; pinned:
    whether a GPU takes them."""
    settings = config.stream
    return Stream(
        config.data.train,
        num_classes=len(manifest.classes),
        batch=settings.batch,
        crop=settings.crop,
        scale=settings.scale,
        mirror=settings.mirror,
        mirror_swaps=settings.mirror_swaps,
        grey=settings.grey,
        blur=settings.blur,
        window_shards=settings.window_shards,
        seed=config.seed,
        loader_processes=settings.loader_processes,
        rank=comm.rank(),
        world=comm.world(),
        accumulation=config.engine.accumulation,
        skip_corrupt=settings.skip_corrupt,
        cache=ShardCache(settings.cache, settings.cache_gb, settings.retry_seconds),
        normalisation=normalisation,
        start_state=state,
        pinned=pinned,
    )
