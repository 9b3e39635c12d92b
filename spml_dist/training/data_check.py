"""The first look at a training's data, before anything is started or written."""

from __future__ import annotations

from spml_dist.config import Config
from spml_dist.data.format.compatibility import require_same_classes, require_tars
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.run_folder import RunFolder


def check(config: Config, network: str = "segmenter") -> Manifest:
    """The manifest of data.train. network: "segmenter", or "cam", which learns from tags alone.

    Raises DataError, naming the file, for a split that cannot be read, tars that are not as their manifest
    says, splits of other classes than the training's, and a CAM training without tags; ConfigError for more
    workers than samples, a pack without classes and class ids that it has not.
    """
    train = config.data.train
    # Manifests and sizes alone: a mistake is told in seconds, before Ray starts.
    manifest = read_manifest(train)
    require_tars(train, manifest)
    if manifest.samples < config.engine.most:
        raise ConfigError(
            "engine.workers",
            config.engine.most,
            f"data.train, {train}, holds no more than {manifest.samples} samples: ask for fewer workers",
        )
    for key, folder in (("data.val", config.data.val), ("data.test", config.data.test)):
        if folder is not None:
            _check_split(key, folder, train, manifest)
    _check_classes(config, manifest)
    if network == "cam" and not any(manifest.counts.images_tagged):
        remedy = "pack with tags, such as `--labels tags`"
        raise DataError(f"{train}: no image is known to show a class", None, remedy)
    return manifest


def require_sound(config: Config, manifest: Manifest, run: RunFolder) -> None:
    """Raise RunError for a finished run whose checkpoints are damaged, and for a pack that was written anew
    since the run learnt from it, as when it is resumed.

    Checkpoints that somebody has removed are none: a finished run needs none.
    """
    from spml_dist.data.stream.loader import start_of
    from spml_dist.training import checkpoint

    if not any(run.checkpoints.glob("step_*")):
        return
    try:
        last = checkpoint.latest(run.checkpoints)
        if last:
            checkpoint.require_whole(last)
    except RunError as error:
        remedy = f"{error.remedy}; or remove {run.checkpoints}, which a finished run does not need"
        raise RunError(error.what, error.value, remedy) from error
    if last:
        start_of(config.data.train, checkpoint.stream_state(last), _fingerprint(config, manifest))


def is_known(config: Config, manifest: Manifest, run: RunFolder) -> bool:
    """Whether a run's last checkpoint has learnt from this very pack, wherever it lay; not without one."""
    from spml_dist.training import checkpoint

    try:
        last = checkpoint.latest(run.checkpoints)
        state = checkpoint.stream_state(last) if last else {}
    except RunError:
        return False  # told where it is read
    return state.get("fingerprint") == _fingerprint(config, manifest)


def _fingerprint(config: Config, manifest: Manifest) -> str:
    from spml_dist.data.stream.loader import fingerprint

    return fingerprint(manifest, config.stream.batch, config.seed, config.stream.window_shards)


def _check_split(key: str, folder: str, train: str, manifest: Manifest) -> None:
    try:
        other = read_manifest(folder)
    except DataError as error:
        remedy = f"{error.remedy}, or change {key}; null = none"
        raise DataError(f"{key}: {error.what}", error.value, remedy) from error
    require_tars(folder, other)
    require_same_classes(folder, other, train, manifest)


def _check_classes(config: Config, manifest: Manifest) -> None:
    if not manifest.classes:
        raise ConfigError("data.train is a pack without classes", config.data.train, "pack with --classes")
    last = len(manifest.classes) - 1
    labels_of = {
        "relations.cooccurrence.ignore_classes": config.relations.cooccurrence.ignore_classes,
        "stream.mirror_swaps": [label for pair in config.stream.mirror_swaps for label in pair],
    }
    for key, labels in labels_of.items():
        if beyond := [label for label in labels if label > last]:
            raise ConfigError(f"{key} names no class of data.train", beyond, f"its class ids are 0 to {last}")
