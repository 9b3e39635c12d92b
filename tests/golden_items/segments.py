"""Golden items of segments/: grid, location, k-means, intersection, prototypes, resizing."""

from __future__ import annotations

import numpy as np
import torch

from spml_dist.method.colour import smoothing
from spml_dist.method.kmeans import cluster, initial_grid, unit
from spml_dist.method.location import location
from spml_dist.method.prototypes import prototypes
from spml_dist.method.segments import resize_labels, segment
from spml_dist.method.step import local_features


def _error(ours, golden) -> float:
    ours = np.asarray(ours, dtype=np.float64)
    return (
        float(np.abs(ours - np.asarray(golden, dtype=np.float64)).max(initial=0))
        if ours.shape == golden.shape
        else np.inf
    )


def _differing(ours, golden) -> float:
    ours = np.asarray(ours)
    return float((ours != golden).sum()) if ours.shape == golden.shape else np.inf


def a_init_grid(z):
    rows = []
    for i, (gy, gx, h, w) in enumerate(z["cases"].tolist()):
        rows.append((f"labels_{i}", _differing(initial_grid((gy, gx), h, w), z[f"labels_{i}"]), 0))
    return rows


def b_location(z):
    rows = []
    for i, (h, w) in enumerate(z["cases"].tolist()):
        centred = location(h, w)
        integers = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
        rows.append((f"centered_{i}", _error(centred, z[f"centered_{i}"]), 1e-7))
        rows.append((f"float_{i}", _error(centred + 0.5, z[f"float_{i}"]), 1e-7))
        steps = torch.tensor([max(h - 1, 1), max(w - 1, 1)])
        rows.append((f"int_{i}", _differing(((centred + 0.5) * steps).round().long(), z[f"int_{i}"]), 0))
        rows.append((f"int_{i} (row, column)", _differing(integers, z[f"int_{i}"]), 0))
    return rows


def c_kmeans(z):
    grid, iterations = tuple(z["grid"].tolist()), int(z["iterations"])
    embedding = unit(torch.from_numpy(z["embedding_raw"]))
    h, w = embedding.shape[:2]
    feature = unit(torch.cat([embedding, location(h, w)], dim=-1))
    start = np.unique(initial_grid(grid, h, w).numpy(), return_inverse=True)[1].reshape(h, w)
    return [
        ("embedding_unit", _error(embedding, z["embedding_unit"]), 1e-6),
        ("location", _error(location(h, w), z["location"]), 1e-7),
        ("feature_unit", _error(feature, z["feature_unit"]), 1e-6),
        ("init_labels", _differing(start, z["init_labels"]), 0),
        ("labels_after_1", _differing(cluster(feature[None], grid, 1)[0], z["labels_after_1"]), 0),
        ("labels", _differing(cluster(feature[None], grid, iterations)[0], z["labels"]), 0),
    ]


def c2_segment(z):
    raw = torch.from_numpy(z["raw"])
    local = location(*raw.shape[2:])[None]
    semantic = np.where(z["panoptic"] == z["ignore_index"], 255, z["semantic"])
    pixels, segments = segment(
        raw,
        torch.from_numpy(semantic),
        torch.from_numpy(z["instance"]),
        local=local,
        grid=tuple(z["grid"].tolist()),
        iterations=int(z["iterations"]),
    )
    label = segments.semantic[pixels.segment] * 2048 + segments.region[pixels.segment]
    return [
        ("out_embedding", _error(pixels.embedding, z["out_embedding"]), 1e-6),
        ("out_embedding_with_loc", _error(pixels.feature, z["out_embedding_with_loc"]), 1e-6),
        ("out_label", _differing(label, z["out_label"]), 0),
        ("out_cluster_index", _differing(pixels.segment, z["out_cluster_index"]), 0),
        ("out_batch_index", _differing(pixels.image, z["out_batch_index"]), 0),
        ("out_batch_index_device1", _differing(pixels.image + len(raw), z["out_batch_index_device1"]), 0),
    ]


def d_prototypes(z):
    embedding = torch.from_numpy(z["embedding"]).requires_grad_()
    labels, count = torch.from_numpy(z["labels"]), int(z["max_label"])
    ours = prototypes(embedding, labels, count)
    (ours * torch.from_numpy(z["upstream"])).sum().backward()
    present = prototypes(embedding, labels, int(labels.max()) + 1)
    return [
        ("prototypes", _error(ours.detach(), z["prototypes"]), 1e-6),
        ("prototypes_no_max_label", _error(present.detach(), z["prototypes_no_max_label"]), 1e-6),
        ("grad_embedding", _error(embedding.grad, z["grad_embedding"]), 1e-6),
    ]


def l_resize_labels(z):
    labels = torch.from_numpy(z["labels"])
    return [
        (name, _differing(resize_labels(labels, z[name].shape[1:]), z[name]), 0) for name in ("down", "up")
    ]


def m_color_features(z):
    """The release's inverted cone; the features as the engine puts them together."""
    image = torch.from_numpy(z["image"])
    return [
        ("kernel", _error(smoothing("cone").expand(3, 1, 5, 5), z["kernel"]), 1e-7),
        ("features", _error(local_features(image, tuple(z["size"].tolist()), "cone"), z["features"]), 1e-5),
    ]
