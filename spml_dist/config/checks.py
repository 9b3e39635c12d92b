"""Rules between fields, each an error that names the keys it is about."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from spml_dist.errors import ConfigError

if TYPE_CHECKING:
    from spml_dist.config.models import Config


def check(config: Config) -> None:
    """Raise ConfigError for the first rule that `config` breaks."""
    # One at a time: correcting the first often mends the others.
    for rule in (
        _head,
        _embedding,
        _workers,
        _batch,
        _scale,
        _swaps,
        _grid,
        _terms,
        _warmup,
        _policy,
        _decays,
        _clip,
        _weights,
        _tracking,
        _remote,
        _precision,
        _compile,
        _partitions,
        _capacity,
        _bank_warmup,
        _recent,
        _gpu_index,
        _cooccurrence,
        _affinity,
        _encoder,
    ):
        rule(config)


def _head(config: Config) -> None:
    head, dilations = config.model.head, list(config.model.dilations)
    if head == "deeplab" and not dilations:
        raise ConfigError(
            "model.dilations", "[]", "model.head deeplab needs at least one, such as [6, 12, 18, 24]"
        )
    if head == "pspnet" and dilations:
        raise ConfigError("model.dilations", dilations, "model.head pspnet has none: set it to []")


def _embedding(config: Config) -> None:
    """An embedding that never changes learns from no relation."""
    if config.model.embedding is None:
        return
    for name, relation in config.relations:
        if relation.weight:
            raise ConfigError(
                f"relations.{name}.weight",
                relation.weight,
                "model.embedding never changes, so that no relation teaches anything: set it to 0",
            )


def _workers(config: Config) -> None:
    engine = config.engine
    if engine.fewest > engine.most:
        counts = [engine.fewest, engine.most]
        raise ConfigError("engine.workers", counts, f"the fewest come first: {counts[::-1]}")
    # Where every rank takes its own mean, the number of workers decides what is learnt.
    if engine.fewest < engine.most and config.loss.reduction != "global":
        raise ConfigError(
            "engine.workers",
            [engine.fewest, engine.most],
            f"loss.reduction {config.loss.reduction} makes another loss of every number of workers: name one",
        )


def _batch(config: Config) -> None:
    batch, parts, workers = config.stream.batch, config.engine.accumulation, config.engine.most
    if batch % parts:
        raise ConfigError(
            "stream.batch", batch, f"it must be a multiple of engine.accumulation, which is {parts}"
        )
    # A worker without an image would still have to take part in every collective of the step.
    if batch // parts < workers:
        raise ConfigError(
            "stream.batch",
            batch,
            f"a micro-batch (stream.batch / engine.accumulation = {batch // parts}) needs an image for each "
            f"of the {workers} engine.workers: raise stream.batch or lower engine.accumulation or workers",
        )


def _scale(config: Config) -> None:
    low, high = config.stream.scale
    if low > high:
        raise ConfigError("stream.scale", [low, high], f"the lowest factor comes first: [{high}, {low}]")


def _swaps(config: Config) -> None:
    swaps = config.stream.mirror_swaps
    ids = [each for pair in swaps for each in pair]
    pairs = [list(pair) for pair in swaps]
    if swaps and not config.stream.mirror:
        raise ConfigError("stream.mirror_swaps", pairs, "stream.mirror is false: set it to []")
    if len(set(ids)) < len(ids):
        raise ConfigError("stream.mirror_swaps", pairs, "a class changes places with one other: name it once")


def _grid(config: Config) -> None:
    # More cells than pixels along a side would leave clusters without a pixel from the start.
    side = config.stream.crop // 4
    if max(config.segments.grid) > side:
        raise ConfigError(
            "segments.grid",
            list(config.segments.grid),
            f"at most {side} a side: the embedding has one pixel for 4 of stream.crop ({config.stream.crop})",
        )


def _terms(config: Config) -> None:
    weights = (relation.weight for _, relation in config.relations)
    if not any((*weights, config.loss.cross_entropy)):
        raise ConfigError(
            "relations.annotation.weight",
            0,
            "nothing would be trained: make it, another relation's weight or loss.cross_entropy positive",
        )


def _warmup(config: Config) -> None:
    steps, warmup = config.schedule.steps, config.schedule.warmup
    if warmup >= steps:
        raise ConfigError("schedule.warmup", warmup, f"it must be below schedule.steps, which is {steps}")


def _policy(config: Config) -> None:
    schedule = config.schedule
    if schedule.policy == "poly" and schedule.power is None:
        raise ConfigError("schedule.power", "null", "schedule.policy poly needs one, such as 0.9")
    if schedule.policy == "step" and schedule.power is not None:
        raise ConfigError("schedule.power", schedule.power, "schedule.policy step has none: set it to null")


def _decays(config: Config) -> None:
    schedule, decays = config.schedule, list(config.schedule.decays)
    if schedule.policy == "poly" and decays:
        raise ConfigError("schedule.decays", decays, "schedule.policy poly has none: set it to []")
    if schedule.policy == "step" and not decays:
        raise ConfigError("schedule.decays", "[]", "schedule.policy step needs steps at which to decay")
    if decays != sorted(set(decays)) or (decays and decays[-1] >= schedule.steps):
        raise ConfigError(
            "schedule.decays",
            decays,
            f"steps must rise and stay below schedule.steps, which is {schedule.steps}",
        )


def _clip(config: Config) -> None:
    optimizer = config.optimizer
    if optimizer.clip == "apart" and optimizer.clip_norm is None:
        raise ConfigError(
            "optimizer.clip", "apart", "optimizer.clip_norm is null: set it to a norm, or clip to together"
        )


def _weights(config: Config) -> None:
    if config.model.pretrained and config.model.weights is not None:
        raise ConfigError(
            "model.weights",
            config.model.weights,
            "model.pretrained is true: choose one, null or false for the other",
        )


def _tracking(config: Config) -> None:
    uri = config.tracking.uri
    if "://" not in uri or uri.startswith("file:"):
        raise ConfigError(
            "tracking.uri",
            uri,
            "MLflow keeps runs in a database or on a server: sqlite:///FILE or http://HOST:PORT",
        )
    # The address is written into the run's configuration, its log and its report.
    if uri.startswith("http") and (host := urlsplit(uri).netloc.rpartition("@"))[1]:
        raise ConfigError(
            "tracking.uri holds a name or password",
            f"of {host[2]}",
            "give them by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )


def _remote(config: Config) -> None:
    place = config.checkpoint.remote
    if place and urlsplit(place).scheme not in ("s3", "gs"):
        raise ConfigError("checkpoint.remote", place, "give s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or null")


def _precision(config: Config) -> None:
    precision, stage = config.engine.precision, config.engine.zero_stage
    if precision == "bfloat16" and stage == 0:
        raise ConfigError(
            "engine.precision",
            precision,
            "it needs engine.zero_stage 1, 2 or 3, which keep float32 weights beside it",
        )
    if precision == "float64" and stage > 0:
        raise ConfigError("engine.precision", precision, "it needs engine.zero_stage 0: DeepSpeed refuses it")


def _compile(config: Config) -> None:
    if config.engine.compile and config.engine.zero_stage == 3:
        raise ConfigError(
            "engine.compile",
            "true",
            "engine.zero_stage 3 fetches weights module by module, which cuts the network into pieces: set "
            "it to false, or the stage to 2",
        )


def _partitions(config: Config) -> None:
    partitions, workers = config.bank.partitions, config.engine.most
    if partitions < workers:
        raise ConfigError(
            "bank.partitions", partitions, f"each of the {workers} engine.workers owns at least one: raise it"
        )


def _capacity(config: Config) -> None:
    bank, cells = config.bank, prod(config.segments.grid)
    if bank.candidates == "recent":
        return
    # Below it, rows of a step would push out others of the same step before anybody has seen them.
    if bank.capacity < config.stream.batch * cells:
        raise ConfigError(
            "bank.capacity",
            bank.capacity,
            f"a step has about {config.stream.batch * cells} segments (stream.batch × the cells of "
            "segments.grid), which must all find room: raise it",
        )
    if bank.capacity < bank.partitions * cells:
        raise ConfigError(
            "bank.capacity",
            bank.capacity,
            f"each of the {bank.partitions} bank.partitions needs room for an image of about {cells} "
            f"segments: make it at least {bank.partitions * cells} or lower bank.partitions",
        )


def _bank_warmup(config: Config) -> None:
    steps, warmup = config.schedule.steps, config.bank.warmup
    if warmup >= steps:
        raise ConfigError("bank.warmup", warmup, f"it must be below schedule.steps, which is {steps}")


def _recent(config: Config) -> None:
    """What only a bank of the whole data set has."""
    if config.bank.candidates != "recent":
        return
    # Refused rather than passed over: a value that changes nothing looks as if it did.
    neutral = {"storage": "float32", "warmup": "0", "max_age": "null", "own_images": "false"}
    for key, kept in neutral.items():
        value = getattr(config.bank, key)
        text = "null" if value is None else str(value).lower()
        if text != kept:
            raise ConfigError(
                f"bank.{key}",
                text,
                f"bank.candidates recent keeps the last steps as they are: set it to {kept}",
            )


def _gpu_index(config: Config) -> None:
    if not config.bank.gpu_index:
        return
    if config.engine.device == "cpu":
        raise ConfigError("bank.gpu_index", "true", "with engine.device cpu no GPU searches: set it to false")
    if config.bank.candidates in ("recent", "exact"):
        raise ConfigError(
            "bank.gpu_index",
            "true",
            f"bank.candidates {config.bank.candidates} searches no inverted file: set it to false",
        )


def _cooccurrence(config: Config) -> None:
    """The own image cannot be left out and be asked at once."""
    cooccurrence = config.relations.cooccurrence
    if cooccurrence.weight and not cooccurrence.own_image and config.bank.own_images:
        remedy = "relations.cooccurrence.own_image false leaves the own image out: set it to false too"
        raise ConfigError("bank.own_images", "true", remedy)


def _affinity(config: Config) -> None:
    affinity = config.relations.feature_affinity
    if affinity.scope != "global":
        return
    if affinity.local_features:
        raise ConfigError(
            "relations.feature_affinity.local_features",
            "true",
            "the bank that scope global searches keeps embeddings alone: set it to false, or scope to batch",
        )
    if affinity.weight and config.bank.candidates == "recent":
        raise ConfigError(
            "relations.feature_affinity.scope",
            affinity.scope,
            "bank.candidates recent keeps no bank that can be searched: make that nearest+sampled, or scope "
            "batch",
        )
    if affinity.weight and affinity.neighbours > config.bank.neighbours:
        raise ConfigError(
            "relations.feature_affinity.neighbours",
            affinity.neighbours,
            f"with scope global the bank finds bank.neighbours of them, {config.bank.neighbours}: raise that",
        )


def _encoder(config: Config) -> None:
    momentum = config.bank.encoder_momentum
    if momentum is None:
        return
    if config.bank.candidates == "recent":
        raise ConfigError(
            "bank.encoder_momentum",
            momentum,
            "bank.candidates recent keeps the network's own vectors: set it to null",
        )
    if config.engine.zero_stage == 3:
        raise ConfigError(
            "bank.encoder_momentum",
            momentum,
            "engine.zero_stage 3 leaves no worker the whole weights to follow: set it to null, or the stage "
            "to 2",
        )
