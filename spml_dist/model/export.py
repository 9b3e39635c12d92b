"""A trained network as two files: model.safetensors and model.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, overload

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spml_dist.config.models import Model as ModelConfig
from spml_dist.errors import RunError
from spml_dist.files.write import replacing, write_json
from spml_dist.model import cam, segmenter
from spml_dist.model.cam import Cam
from spml_dist.model.segmenter import Segmenter
from spml_dist.run_folder import MODEL_INFO, MODEL_WEIGHTS

VERSION = 1

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
) -> None:
    """Write a state dict of full float tensors and what is needed to build the network around it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "version": VERSION,
        "network": network,
        "step": step,
        "classes": classes,
        "background": background,
        "model": config.model_dump(mode="json"),
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

    Raises RunError for a folder without a whole model, or with another network than the one that is wanted.
    """
    try:
        info = json.loads((folder / MODEL_INFO).read_text(encoding="utf-8"))
        state = load_file(folder / MODEL_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as problem:
        raise RunError(
            f"{folder} holds no exported model", problem, "train the run to its end first"
        ) from problem
    if info.get("version") != VERSION:
        raise RunError(
            f"{folder / MODEL_INFO} has an unknown version",
            info.get("version"),
            "use the release that wrote it",
        )
    exported = info.get("network", "segmenter")
    if exported != network:
        remedy = f"give the folder of a run of `{TRAINED_BY[network]}`"
        what = f"{folder / MODEL_INFO}: not the network that is needed here, {network}"
        raise RunError(what, exported, remedy)
    build = cam.build if network == "cam" else segmenter.build
    config = ModelConfig(**{**info["model"], "weights": None, "pretrained": False})
    model = build(config, len(info["classes"]), seed=0)
    model.load_state_dict(state)
    return model.eval(), info
