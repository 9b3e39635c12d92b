"""Golden items of the loss kernel on its own."""

from __future__ import annotations

import re

import numpy as np
import torch

from spml_dist.method.loss import contrast
from spml_dist.records import Block, Relation


def _compare(z, suffix, relation, embedding, prototype, own):
    """Loss and gradients of one relation against the float64 reference."""
    rows = []
    e = torch.from_numpy(embedding).requires_grad_()
    p = torch.from_numpy(prototype).requires_grad_()
    block = Block(slice(0, len(e)), slice(0, len(p)), (relation,), (1 / len(e),))
    result = contrast(e, p, own, [block], (1.0,))
    result.loss.backward()
    loss = float(z[f"loss_{suffix}_f64"])
    rows.append((f"loss_{suffix}", abs(result.loss.item() - loss) / abs(loss), 1e-6))
    for name, grad in (("embedding", e.grad), ("prototype", p.grad)):
        error = np.abs(grad.numpy() - z[f"grad_{name}_{suffix}_f64"]).max()
        rows.append((f"grad_{name}_{suffix}", float(error), 1e-7))
    single = []
    for i in range(len(e)):
        one = Relation(
            relation.group[i : i + 1],
            relation.attract,
            relation.repel,
            relation.concentration,
            relation.own_repels,
        )
        block = Block(slice(0, 1), slice(0, len(p)), (one,), (1.0,))
        single.append(
            contrast(e[i : i + 1].detach(), p.detach(), own[i : i + 1], [block], (1.0,)).loss.item()
        )
    wanted = (
        z[f"perpixel_{suffix}_f64"] if f"perpixel_{suffix}_f64" in z.files else z[f"perpixel_{suffix}_f32"]
    )
    rows.append(
        (f"perpixel_{suffix}", float((np.abs(single - wanted) / np.maximum(1, np.abs(wanted))).max()), 5e-6)
    )
    return rows


def f_segsort(z):
    labels, semantic = torch.from_numpy(z["prototype_label"]), torch.from_numpy(z["semantic"])
    own = torch.from_numpy(z["cluster_index"])
    classes, group = torch.unique(torch.cat([semantic, labels]), return_inverse=True)
    attract = classes[:, None] == labels[None, :]
    rows = []
    for name in z.files:
        if found := re.fullmatch(r"loss_(k(\d+)_(plus|self))_f64", name):
            suffix, kappa, mode = found.groups()
            pulled = attract if mode == "plus" else torch.zeros_like(attract)  # "segsort": own segment only
            relation = Relation(group[: len(semantic)], pulled, ~attract, float(kappa))
            rows += _compare(z, suffix, relation, z["embedding"], z["prototype"], own)
    return rows


def f_set_segsort(z):
    of_prototypes, of_pixels = (torch.from_numpy(z[k]).double() for k in ("prototype_tags", "pixel_tags"))
    sets, group = torch.unique(of_pixels, dim=0, return_inverse=True)
    attract = sets @ of_prototypes.T > 0
    own = torch.from_numpy(z["cluster_index"])
    rows = []
    for name in z.files:
        if found := re.fullmatch(r"loss_(k(\d+))_f64", name):
            relation = Relation(group, attract, ~attract, float(found[2]), own_repels=True)
            rows += _compare(z, found[1], relation, z["embedding"], z["prototype"], own)
    return rows
