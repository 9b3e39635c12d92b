"""Golden items of the labels that are spread: random walks and rescaled votes."""

from __future__ import annotations

import numpy as np
import torch

from spml_dist.labeling import random_walk
from spml_dist.labeling.rescaling import rescale

Row = tuple[str, float, float]
CONSTANTS = {"steps": 6, "gamma": 5, "beta": 20, "down": 8, "alpha": 6}
"""What the release fixes, for items that do not say it; 2^steps is the power of the transition"""


def h_random_walk(z) -> list[Row]:
    """Seeds of the classifier; the 64th power of the transition is what a walk makes of the identity."""
    logit, label = _views(z, "logit"), torch.from_numpy(z["label"]).long()
    alike, step, grid = _steps(z)
    classes = logit.shape[1]
    present = torch.isin(torch.arange(classes), label)
    mean = random_walk.mean_softmax(logit, grid)
    seeds = random_walk.softmax_seeds(mean, present)
    walked = random_walk.walk(seeds, step, _steps_of(z))
    cells = len(step)
    power = random_walk.walk(torch.eye(cells).view(cells, *grid), step, _steps_of(z)).flatten(1)
    return [
        ("affinity", _worst(alike, z["affinity"]), 1e-5),
        ("transition", _worst(power, z["transition"]), 1e-4),
        ("prob_mean", _worst(mean, z["prob_mean"]), 1e-5),
        ("prob_normalised", _worst(seeds, z["prob_normalised"]), 1e-5),
        *_walked(walked, z),
    ]


def h_cam_random_walk(z) -> list[Row]:
    """Seeds of class activation maps, whose keys leave the background out."""
    cams, classes = torch.from_numpy(z["cam_maps"]), torch.from_numpy(z["cam_keys"]) + 1
    alike, step, grid = _steps(z)
    seeds = random_walk.cam_seeds(cams, classes, len(z["cam_with_background"]), _constant(z, "alpha"))
    low = random_walk.resize(seeds, grid)
    return [
        ("cam_with_background", _worst(seeds, z["cam_with_background"]), 1e-6),
        ("cam_down", _worst(low, z["cam_down"]), 1e-5),
        ("affinity", _worst(alike, z["affinity"]), 1e-5),
        *_walked(random_walk.walk(low, step, _steps_of(z)), z),
    ]


def k_nn_prob_norm(z) -> list[Row]:
    """Shares of votes, averaged over the views, rescaled for the classes in the image."""
    votes = z["topk_probs"].mean(axis=0).transpose(2, 0, 1)
    ours = rescale(votes, z["image_tags"].astype(bool), float(z["floor"]))
    return [("prob", _worst(ours, z["prob"]), 1e-6)]


def _steps(z) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    embedding = _views(z, "embedding")
    grid = tuple(side // _constant(z, "down") for side in embedding.shape[-2:])
    alike = random_walk.affinity(embedding, grid, _constant(z, "gamma"))
    return alike, random_walk.transition(alike, _constant(z, "beta")), grid


def _views(z, name: str) -> torch.Tensor:
    mirrored = torch.from_numpy(z[f"{name}_on_mirrored"]).flip(-1)
    return torch.cat([torch.from_numpy(z[name]), mirrored])


def _walked(walked: torch.Tensor, z) -> list[Row]:
    full = random_walk.resize(walked, z["pred_before_crf"].shape)
    differing = full.argmax(dim=0).numpy() != z["pred_before_crf"]
    return [
        ("walked", _worst(walked, z["walked"]), 1e-4),
        ("walked_full", _worst(full.movedim(0, -1), z["walked_full"]), 1e-4),
        ("pred_before_crf", float(differing.mean()), 1e-3),
    ]


def _steps_of(z) -> int:
    return 2 ** _constant(z, "steps")


def _constant(z, name: str) -> int:
    return int(z[name]) if name in z.files else CONSTANTS[name]


def _worst(ours, expected: np.ndarray) -> float:
    ours = np.asarray(ours, np.float64)
    if ours.shape != expected.shape:
        return float("inf")
    return float(np.abs(ours - expected).max())
