"""A configuration that means the same from any working folder."""

from __future__ import annotations

import os
from pathlib import Path

from spml_dist.config import Config
from spml_dist.files.address import scheme
from spml_dist.tracking.mlflow_client import absolute_uri


def absolute(config: Config, root: Path) -> Config:
    """The configuration with every path absolute, so that workers anywhere on the file system agree.

    root: the folder that relative paths start from. Addresses stay as they are.
    """

    def path(place: str | None) -> str | None:
        return place if place is None or scheme(place) else os.path.abspath(root / place)

    data = {split: path(place) for split, place in config.data.model_dump().items()}
    return config.model_copy(
        update={
            "output": path(config.output),
            "data": config.data.model_copy(update=data),
            "stream": config.stream.model_copy(update={"cache": path(config.stream.cache)}),
            "model": config.model.model_copy(
                update={"weights": path(config.model.weights), "embedding": path(config.model.embedding)}
            ),
            "tracking": config.tracking.model_copy(update={"uri": absolute_uri(config.tracking.uri, root)}),
        }
    )
