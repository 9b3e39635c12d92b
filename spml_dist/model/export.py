"""A trained network as two files: model.safetensors and model.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spml_dist.config.models import Model as ModelConfig
from spml_dist.errors import RunError
from spml_dist.model import cam, segmenter
from spml_dist.model.cam import Cam
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import IMAGENET, Normalisation

VERSION = 1

Network = Literal["segmenter", "cam"]
"""which network a folder holds"""

MADE_BY: dict[Network, str] = {"segmenter": "spml-dist train", "cam": "spml-dist cam train"}


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
    aside = folder / "model.safetensors.tmp"
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, aside)
    os.replace(aside, folder / "model.safetensors")
    aside = folder / "model.json.tmp"
    aside.write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, folder / "model.json")


def load(folder: Path, network: Network = "segmenter") -> tuple[Segmenter | Cam, dict]:
    """The network on the CPU in evaluation mode, and what is known of it (classes, background, step).

    Raises RunError for a folder without a whole model, or with another network than the one that is wanted.
    """
    try:
        info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        state = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as problem:
        raise RunError(
            f"{folder} holds no exported model", problem, "train the run to its end first"
        ) from problem
    if info.get("version") != VERSION:
        raise RunError(
            f"{folder}/model.json has an unknown version",
            info.get("version"),
            "use the release that wrote it",
        )
    held = info.get("network", "segmenter")
    if held != network:
        remedy = f"give the folder of a run of `{MADE_BY[network]}`"
        raise RunError(f"{folder}/model.json: not the network that is needed here, {network}", held, remedy)
    build = cam.build if network == "cam" else segmenter.build
    config = ModelConfig(**{**info["model"], "weights": None, "pretrained": False})
    model = build(config, len(info["classes"]), seed=0)
    model.load_state_dict(state)
    model.normalisation = Normalisation.of(info)
    return model.eval(), info
