"""A trained network as two files: model.safetensors and model.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spml_dist.config import read_section
from spml_dist.config.models import ModelConfig
from spml_dist.errors import RunError
from spml_dist.files.write import replacing, write_json
from spml_dist.model import cam, segmenter
from spml_dist.model.cam import Cam
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import IMAGENET, Normalisation
from spml_dist.run_folder import MODEL_INFO, MODEL_WEIGHTS

VERSION = 1
WRITTEN = ("step", "classes", "background", "model")
"""keys of model.json that every release wrote"""

Network = Literal["segmenter", "cam"]
"""which network a folder holds"""

TRAINED_BY: dict[Network, str] = {"segmenter": "spml-dist train", "cam": "spml-dist cam train"}


def save(
    state: dict,
    folder: Path,
    config: ModelConfig,
    classes: list[str],
    background: int | None,
    step: int,
    network: Network = "segmenter",
    normalisation: Normalisation = IMAGENET,
) -> None:
    """Write a state dict of full float tensors and what is needed to build the network around it and to
    show it images."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "version": VERSION,
        "network": network,
        "step": step,
        "classes": classes,
        "background": background,
        "model": config.model_dump(mode="json"),
        **asdict(normalisation),
    }
    with replacing(folder / MODEL_WEIGHTS) as aside:
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, aside)
    # Last: a folder with it is whole.
    write_json(folder / MODEL_INFO, info, sort_keys=False)


@overload
def load(folder: Path, network: Literal["segmenter"] = "segmenter") -> tuple[Segmenter, dict[str, Any]]: ...


@overload
def load(folder: Path, network: Literal["cam"]) -> tuple[Cam, dict[str, Any]]: ...


def load(folder: Path, network: Network = "segmenter") -> tuple[Segmenter | Cam, dict[str, Any]]:
    """The network on the CPU in evaluation mode, and what is known of it (classes, background, step).

    An export of an earlier release is read with the defaults of what its model section lacks. Raises RunError
    for a folder without a whole model, for weights that do not fit the network that model.json describes, and
    for another network than the one that is wanted; ConfigError for a setting of it that cannot be used.
    """
    path = folder / MODEL_INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        state = load_file(folder / MODEL_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as problem:
        raise RunError(
            f"{folder} holds no exported model", problem, "train the run to its end first"
        ) from problem
    _require_whole(path, info)
    if (present := info.get("network", "segmenter")) != network:
        remedy = f"give the folder of a run of `{TRAINED_BY[network]}`"
        raise RunError(f"{path}: not the network that is needed here, {network}", present, remedy)
    config = read_section("model", ModelConfig, info["model"], path)
    # What the training started from is not needed again, and perhaps no longer there.
    config = config.model_copy(update={"weights": None, "pretrained": False})
    model = (cam.build if network == "cam" else segmenter.build)(config, len(info["classes"]), seed=0)
    try:
        model.load_state_dict(state)
    except RuntimeError as problem:
        raise RunError(
            f"{folder / MODEL_WEIGHTS} does not fit {path}", problem, "take both files of one export"
        ) from problem
    model.normalisation = Normalisation.of(info)
    return model.eval(), info


def _require_whole(path: Path, info: Any) -> None:
    version = info.get("version") if isinstance(info, dict) else None
    if version != VERSION:
        raise RunError(f"{path} has an unknown version", version, "use the release that wrote it")
    if lacking := [key for key in WRITTEN if key not in info]:
        raise RunError(f"{path} lacks {', '.join(lacking)}", None, "export the run again")
