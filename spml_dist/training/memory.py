"""What a training will need of a device's memory, reckoned from its configuration before anything runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from spml_dist.config import Config
from spml_dist.model import segmenter
from spml_dist.records import BankRows
from spml_dist.training.build import PRECISION

EMBEDDINGS = 8
"""copies of a micro-batch's embedding, in float32, that segments, loss and their gradients keep"""
WORK = 1.4
"""a step's peak over what it keeps: gradients on their way back, buffers of convolutions, the loss's tile"""


@dataclass(frozen=True)
class Need:
    """Bytes of one worker, by what they are for."""

    parameters: int
    """weights, gradients and momentum, with those in float32 beside a 16-bit network"""
    activations: int
    """of the network's forward pass, for its backward pass"""
    segments: int
    """embeddings, segments and losses"""
    bank: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def need(config: Config, classes: int) -> Need:
    """What the worker with the most images needs, where as few workers train as may.

    The network is run on tensors that hold nothing. Assumed: all of a micro-batch is alive at once, the bank
    is full, and what is alive for a moment follows what is kept, by the factor WORK, which was measured.
    Beside it a process needs what it has before its first step: about 1 GB of main memory, of a GPU half.
    """
    engine, stream = config.engine, config.stream
    images = math.ceil(stream.batch / engine.accumulation / engine.fewest)
    cells = math.ceil(stream.crop / segmenter.GRID_STRIDE) ** 2
    parameters, activations = _network(config, images, classes)
    embedding = images * cells * (config.model.embedding_dim + classes) * 4
    network, segments = (math.ceil(WORK * each) for each in (activations, EMBEDDINGS * embedding))
    return Need(_split(parameters, config), network, segments, _bank(config, classes))


def _network(config: Config, images: int, classes: int) -> tuple[int, int]:
    """Numbers that are trained, and bytes that are kept for the backward pass."""
    dtype = PRECISION[config.engine.precision]
    model = config.model.model_copy(update={"weights": None, "pretrained": False, "embedding": None})
    network = segmenter.build(model, classes, config.seed).to("meta", dtype).train()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no other one gets its place

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        side = config.stream.crop
        network(torch.empty(images, 3, side, side, dtype=dtype, device="meta"), range(images))
    numbers = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return numbers, sum(storage.nbytes() for storage in kept.values())


def _split(numbers: int, config: Config) -> int:
    """Bytes of weights, gradients and what the optimiser remembers, as ZeRO shares them out, and of the
    momentum encoder, which every worker has."""
    engine = config.engine
    size = PRECISION[engine.precision].itemsize
    master = 4 if size == 2 else 0  # float32 weights beside 16-bit ones
    moments = {"sgd": 1, "adamw": 2}[config.optimizer.kind]
    encoder = 0 if config.bank.encoder_momentum is None else 4 * numbers
    shares = [engine.fewest if engine.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    return encoder + sum(
        math.ceil(numbers * each / share)
        for each, share in zip((size, size, moments * max(4, size) + master), shares, strict=True)
    )


def _bank(config: Config, classes: int) -> int:
    """Bytes of this worker's rows, and of the vectors in its inverted file."""
    bank = config.bank
    if bank.candidates == "recent":
        cells = math.prod(config.segments.grid)
        rows, copies = bank.steps * config.stream.batch * cells * config.engine.fewest, 1
    else:
        rows, copies = bank.capacity, 2
    vector = config.model.embedding_dim * getattr(torch, bank.storage).itemsize
    beside = len(BankRows.__dataclass_fields__) * 4 + 8 * math.ceil(classes / 63)
    return math.ceil(rows * (copies * vector + beside) / config.engine.fewest)
