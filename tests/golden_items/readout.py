"""Golden items of the read-outs: metric, majority labels, nearest-neighbour votes."""

from __future__ import annotations

import numpy as np
import torch

from spml_dist.bank.search.faiss_index import nearest
from spml_dist.inference import metrics
from spml_dist.inference.neighbours import majority, precision, vote
from spml_dist.method.prototypes import prototypes

Row = tuple[str, float, float]


def r_miou(z) -> list[Row]:
    """Counts exact; the item's IoU are percentages, its accuracy a fraction."""
    counts = metrics.confusion(z["gt"], z["pred"], len(z["tp"]))
    classes = len(counts)
    return [
        ("tp_fn", _different(counts.sum(axis=1), z["tp_fn"]), 0.0),
        ("tp_fp", _different(counts[:, :classes].sum(axis=0), z["tp_fp"]), 0.0),
        ("tp", _different(np.diagonal(counts), z["tp"]), 0.0),
        ("iou", _worst(100 * metrics.iou(counts), z["iou"]), 1e-9),
        ("miou", _worst(100 * metrics.miou(counts), z["miou"]), 1e-9),
        ("pixel_acc", _worst(metrics.pixel_accuracy(counts), z["pixel_acc"]), 1e-9),
    ]


def e_majority(z) -> list[Row]:
    """Majority labels with 255 as a class of its own, and the pixels that agree with their segment's."""
    semantic, cluster = z["semantic"], z["cluster"]
    labels = majority(semantic, cluster, len(z["majority"]), 256)
    ties = majority(z["tie_semantic"], z["tie_cluster"], len(z["tie_majority"]), 256)
    offset = int(z["prep_offset"])
    pairs, instance = np.unique(cluster * offset + semantic, return_inverse=True)
    pure = majority(semantic, instance, len(pairs), 256)
    return [
        ("majority", _different(labels, z["majority"]), 0.0),
        ("selected_pixel_indices", _different(*_agreeing(labels, z)), 0.0),
        ("tie_majority", _different(ties, z["tie_majority"]), 0.0),
        ("prep_unique_instance", _different(instance, z["prep_unique_instance"]), 0.0),
        ("prep_prototype_labels", _different(pure, z["prep_prototype_labels"]), 0.0),
    ]


def i_nn_voting(z) -> list[Row]:
    """Prototypes of the clusters, their k nearest rows, the vote; a row's labels compared in sorted order."""
    classes = int(max(z["memory_label"].max(), z["tie_topk"].max())) + 1
    ids, cluster = np.unique(z["cluster_index"], return_inverse=True)
    queries = prototypes(
        torch.from_numpy(z["cluster_embedding"]), torch.from_numpy(cluster), len(ids)
    ).numpy()
    _, index = nearest(queries, z["memory_prototype"], int(z["k"]))
    found = z["memory_label"][index][cluster]
    predicted = vote(index, z["memory_label"], classes)[cluster]

    top = z["rank_top5_labels"]
    _, ranked = nearest(z["rank_query"], z["memory_prototype"], top.shape[1])
    accuracy = precision(ranked, z["memory_label"], z["rank_query_label"])
    return [
        ("topk_labels_per_pixel", _different(_sorted(found), _sorted(z["topk_labels_per_pixel"])), 0.0),
        ("prediction_per_pixel", _different(predicted, z["prediction_per_pixel"]), 0.0),
        (
            "tie_majority",
            _different(vote(z["tie_topk"], np.arange(classes), classes), z["tie_majority"]),
            0.0,
        ),
        ("rank_top5_labels", _different(_sorted(z["memory_label"][ranked]), _sorted(top)), 0.0),
        ("rank_accuracy", _worst(accuracy, z["rank_accuracy"]), 1e-6),
    ]


def _agreeing(labels: np.ndarray, z) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(labels[z["cluster"]] == z["semantic"]), z["selected_pixel_indices"]


def _different(ours: np.ndarray, expected: np.ndarray) -> float:
    ours, expected = np.asarray(ours), np.asarray(expected)
    return float((ours != expected).sum()) if ours.shape == expected.shape else float("inf")


def _worst(ours, expected) -> float:
    return float(np.abs(np.asarray(ours, np.float64) - np.asarray(expected, np.float64)).max())


def _sorted(labels: np.ndarray) -> np.ndarray:
    return np.sort(labels, axis=1)
