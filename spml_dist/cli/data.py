"""The first look at an experiment's data, before anything is started or written."""

from __future__ import annotations

from spml_dist.config import Config
from spml_dist.data.format.compatibility import require_same_classes, require_tars
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError, DataError


def checked(config: Config) -> Manifest:
    """The manifest of data.train.

    Raises DataError, naming the file, for a split that cannot be read, tars that are not as their manifest
    says, and splits of other classes than the training's; ConfigError for more workers than samples.
    """
    train = config.data.train
    manifest = read_manifest(train)
    require_tars(train, manifest)
    if manifest.samples < config.engine.workers:
        raise ConfigError(
            "engine.workers",
            config.engine.workers,
            f"data.train, {train}, holds no more than {manifest.samples} samples: ask for fewer workers",
        )
    for key, folder in (("data.val", config.data.val), ("data.test", config.data.test)):
        if folder is None:
            continue
        try:
            other = read_manifest(folder)
        except DataError as error:
            remedy = f"{error.remedy}, or change {key}; null = none"
            raise DataError(f"{key}: {error.what}", error.value, remedy) from error
        require_tars(folder, other)
        require_same_classes(folder, other, train, manifest)
    return manifest
