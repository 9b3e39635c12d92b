"""Golden items of a whole step: from the network's raw output to each relation's loss and gradient.

They run the engine's own step, so what is compared is what trains.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from spml_dist import comm
from spml_dist.bank.recent import RecentBank
from spml_dist.config import load
from spml_dist.method.relations import feature_affinity
from spml_dist.method.step import TERMS, losses, segments_of
from spml_dist.model.batch_norm import globalise
from spml_dist.model.heads import ClassifierHead
from spml_dist.records import UNLABELLED, Batch, Candidates
from tests.remembering import remembering
from tests.spawn import spawn

CONFIG = Path(__file__).parents[1] / "small.yaml"
NAMES = {"sem_ann": "annotation", "sem_occ": "cooccurrence", "img_sim": "image_similarity"}


def _config(z, reduction="global", changed=(), **weights):
    """A shipped configuration with the item's grid and concentrations, and only the given terms on."""
    kappa = dict(
        zip(("annotation", "cooccurrence", "image_similarity"), z["kappa_ann_occ_img"].tolist(), strict=True)
    )
    changes = [f"segments.grid={z['grid'].tolist()}", f"segments.iterations={int(z['iterations'])}"]
    kappa["feature_affinity"] = kappa["cooccurrence"]  # the slot in which the release could have run it
    for term, concentration in kappa.items():
        changes += [
            f"relations.{term}.weight={weights.get(term, 0.0)}",
            f"relations.{term}.concentration={concentration}",
        ]
    changes += [f"loss.cross_entropy={weights.get('cross_entropy', 0.0)}", f"loss.reduction={reduction}"]
    changes += ["loss.tagless=reference", "relations.cooccurrence.ignore_classes=[0]"]
    changes += ["bank.candidates=recent", "bank.steps=2"]
    return load(CONFIG, [*changes, *changed])


def _batch(z, rows=slice(None)) -> Batch:
    """The item's labels as a batch; the release reads the tag entries 1..K-1 and knows every image's tags."""
    k = int(z["num_classes"])
    tags = torch.from_numpy(z["tags"][rows][:, :k]).bool()
    semantic = torch.from_numpy(z["semantic"][rows])
    return Batch(
        keys=tuple(map(str, range(len(tags)))),
        position=torch.arange(len(z["tags"]))[rows],
        image=torch.zeros(len(tags), 3, 1, 1),
        semantic=semantic,
        regions=torch.from_numpy(z["instance"][rows]),
        tags=tags,
        tags_known=torch.ones(len(tags), dtype=torch.bool),
        window=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(tags), 4),
        epoch=0,
    )


def _remembered(z) -> list[Candidates]:
    k, kept = int(z["num_classes"]), []
    while f"bank{len(kept)}_prototype" in z.files:
        part = {
            name: torch.from_numpy(z[f"bank{len(kept)}_{name}"])
            for name in (
                "prototype",
                "prototype_semantic_label",
                "semantic_tag" if f"bank{len(kept)}_semantic_tag" in z.files else "prototype_semantic_tag",
                "prototype_batch_index",
            )
        }
        prototype, semantic, tags, image = part.values()
        known = torch.ones(len(tags), dtype=torch.bool)
        kept.append(Candidates(prototype, semantic, tags[:, :k].bool(), known, image, semantic))
    return kept


def _logits(raw, z):
    return raw.new_zeros(len(raw), int(z["num_classes"]), *raw.shape[2:])


def _term(z, term: str, remembered):
    raw = torch.from_numpy(z["raw"]).requires_grad_()
    config = _config(z, **{term: 1.0})
    result = losses(raw, _logits(raw, z), _batch(z), remembering(remembered), 0, config)
    result.total.backward()
    return result, raw.grad.numpy()


def _loss_rows(z, remembered):
    rows = []
    for name, term in NAMES.items():
        result, grad = _term(z, term, remembered)
        rows += _against(z, name, result.values[TERMS.index(term)].item(), grad)
    return rows


def _against(z, name, value, grad):
    wanted, wanted_grad = float(z[f"loss_{name}_f64"]), z[f"grad_raw_{name}_f64"]
    worst = np.abs(grad - wanted_grad).max() / np.abs(wanted_grad).max()
    return [
        (f"loss_{name}", abs(value - wanted) / abs(wanted), 1e-6),
        (f"grad_raw_{name}", float(worst), 2e-6),
    ]


def _middle_rows(z, images=slice(None)):
    """Segments and prototypes on the way."""
    raw = torch.from_numpy(z["raw"])
    pixels, segments = segments_of(raw, _batch(z), _config(z, annotation=1.0))
    exact = {
        "cluster_index": pixels.segment,
        "cluster_batch_index": pixels.image,
        "cluster_semantic_label": pixels.semantic,
        "cluster_instance_label": pixels.region,
        "prototype_semantic_label": segments.semantic,
        "prototype_instance_label": segments.region,
        "prototype_batch_index": segments.image,
    }
    close = {
        "cluster_embedding": pixels.embedding,
        "cluster_embedding_with_loc": pixels.feature,
        "prototype": segments.prototype,
        "prototype_with_loc": segments.prototype_feature,
    }
    rows = []
    for name, ours in exact.items():
        wanted = z[f"mid_{name}"]
        rows.append(
            (
                f"mid_{name}",
                float((ours.numpy() != wanted).sum()) if ours.shape == wanted.shape else np.inf,
                0,
            )
        )
    for name, ours in close.items():
        wanted = z[f"mid_{name}"]
        error = np.abs(ours.numpy() - wanted).max() if ours.shape == wanted.shape else np.inf
        rows.append((f"mid_{name}", float(error), 2e-6))
    return rows


def g_relations_nobank(z):
    return _middle_rows(z) + _loss_rows(z, [])


g_relations_edge = g_relations_nobank


def g_relations_bank(z):
    remembered = _remembered(z)
    rows = _middle_rows(z) + _loss_rows(z, remembered)
    bank = RecentBank(len(remembered))
    for part in remembered:
        bank.add(part)
    # The release shifts the image numbers of what it remembers; here an image keeps its own.
    bank.add(_term(z, "annotation", remembered)[0].segments.candidates)
    for i, part in enumerate(bank.rows()):
        wanted = z[f"after_bank{i}_prototype"]
        error = (
            np.abs(part.prototype.numpy() - wanted).max() if part.prototype.shape == wanted.shape else np.inf
        )
        rows.append((f"after_bank{i}_prototype", float(error), 2e-6))
        ours, theirs = map(_numbered, (part.image.numpy(), z[f"after_bank{i}_prototype_batch_index"]))
        rows.append((f"after_bank{i} images", float((ours != theirs).sum()), 0))
    numbers = [set(part.image.tolist()) for part in bank.rows()]
    rows.append(("images of different steps that share a number", float(len(set.intersection(*numbers))), 0))
    return rows


def _numbered(images: np.ndarray) -> np.ndarray:
    """Images numbered in the order in which they appear."""
    _, first, inverse = np.unique(images, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _shard(rank: int, arrays: dict) -> dict[str, tuple]:
    per = len(arrays["raw"]) // comm.world()
    mine = slice(rank * per, (rank + 1) * per)
    done = {}
    for term in NAMES.values():
        raw = torch.from_numpy(arrays["raw"][mine]).requires_grad_()
        config = _config(arrays, reduction="per_rank", **{term: 1.0})
        result = losses(raw, _logits(raw, arrays), _batch(arrays, mine), remembering([]), 0, config)
        result.total.backward()
        done[term] = (result.values[TERMS.index(term)].item(), result.pixels, raw.grad.numpy())
    return done


def g_relations_sharded(z):
    """One process per shard, over gloo; each rank's mean, and the gradient of the mean of the ranks."""
    shards, rows = int(z["shards"]), _middle_rows(z)
    ranks = spawn(_shard, shards, {name: z[name] for name in z.files})
    for name, term in NAMES.items():
        parts = [rank[term] for rank in ranks]
        for shard, (value, pixels, _) in enumerate(parts):
            wanted = float(z[f"loss_per_shard_{name}_f64"][shard])
            rows.append((f"loss_per_shard_{name}[{shard}]", abs(value - wanted) / abs(wanted), 1e-6))
            off = abs(pixels - int(z["pixels_per_shard"][shard]))
            rows.append((f"pixels_per_shard[{shard}]", float(off), 0))
        grad = np.concatenate([part[2] for part in parts]) / shards
        rows += _against(z, name, float(np.mean([part[0] for part in parts])), grad)
    return rows


def g_total_voc(z):
    prefix = "param_semantic_classifier__"
    raw = torch.from_numpy(z["raw"]).requires_grad_()
    k = int(z["num_classes"])
    head = globalise(ClassifierHead(raw.shape[1], k, 0.0)).eval()
    names = {"0": head.mix, "1": head.norm, "4": head.classify}
    for name in z.files:
        if name.startswith(prefix):
            layer, entry = name.removeprefix(prefix).split("__")
            getattr(names[layer], entry).data.copy_(torch.from_numpy(z[name]))
    ann, occ, img = z["weights_ann_occ_img"].tolist()
    config = _config(z, annotation=ann, cooccurrence=occ, image_similarity=img, cross_entropy=ann)
    unit = torch.nn.functional.normalize(raw.detach(), dim=1, eps=1e-12)
    result = losses(raw, head(unit), _batch(z), remembering([]), 0, config)
    result.total.backward()
    value = dict(zip(TERMS, result.values.tolist(), strict=True))
    ours = {
        "total": result.total.item(),
        "loss_ann_plus_ce_times_w": ann * (value["annotation"] + value["cross_entropy"]),
        "loss_occ_times_w": occ * value["cooccurrence"],
        "loss_img_times_w": img * value["image_similarity"],
    }
    rows = [
        (name, abs(v - float(z[f"{name}_f64"])) / abs(float(z[f"{name}_f64"])), 1e-5)
        for name, v in ours.items()
    ]
    grads = {"grad_raw_f64": raw.grad}
    for layer, module in names.items():
        for entry, parameter in module.named_parameters():
            grads[f"paramgrad_semantic_classifier__{layer}__{entry}_f64"] = parameter.grad
    for name, grad in grads.items():
        rows.append((name, float(np.abs(grad.numpy() - z[name]).max() / np.abs(z[name]).max()), 1e-5))
    return rows


NAMES_DENSEPOSE = {
    "sem_ann": "annotation",
    "feat_aff": "feature_affinity",
    "img_sim": "image_similarity",
}
DENSEPOSE = (
    "segments.embedding_scale=0.1",
    "relations.image_similarity.local_features=false",
    "relations.feature_affinity.scope=image",
    "relations.feature_affinity.min_similarity=0.95",
    "relations.feature_affinity.local_features=true",
)


def _given(z):
    """A step that takes the item's local features, which has no image to make them from."""
    return patch("spml_dist.method.step.local_features", lambda *_: torch.from_numpy(z["local_features"]))


def _remembered_densepose(z, dtype) -> list[Candidates]:
    k, kept = int(z["num_classes"]), []
    while f"bank{len(kept)}_prototype" in z.files:
        prototype, vectors, semantic, image = (
            torch.from_numpy(z[f"bank{len(kept)}_prototype{name}"])
            for name in ("", "_with_loc", "_semantic_label", "_batch_index")
        )
        labelled = semantic < k
        propagated, _ = feature_affinity.propagate(
            vectors, semantic, vectors[labelled], semantic[labelled], k, 0.95, (image, image[labelled])
        )
        tags = torch.zeros(len(semantic), k, dtype=torch.bool)
        kept.append(Candidates(prototype.to(dtype), semantic, tags, tags.any(dim=1), image, propagated))
    return kept


def _densepose_rows(z, dtype, of_loss: float, of_gradient: float):
    rows, remembered = [], _remembered_densepose(z, dtype)
    for name, term in NAMES_DENSEPOSE.items():
        raw = torch.from_numpy(z["raw"]).to(dtype).requires_grad_()
        config = _config(z, changed=DENSEPOSE, **{term: 1.0})
        with _given(z):
            result = losses(raw, _logits(raw, z), _batch(z), remembering(remembered), 0, config)
        result.total.backward()
        loss, gradient = _against(z, name, result.values[TERMS.index(term)].item(), raw.grad.numpy())
        rows += [
            (f"{loss[0]}, {dtype}", loss[1], of_loss),
            (f"{gradient[0]}, {dtype}", gradient[1], of_gradient),
        ]
    return rows


def _densepose_middle(z):
    """Squeezed features, and the classes that feature affinity passes on, in this step and in the bank."""
    raw, config = torch.from_numpy(z["raw"]), _config(z, changed=DENSEPOSE, feature_affinity=1.0)
    remembered = _remembered_densepose(z, raw.dtype)
    with _given(z):
        pixels, segments = segments_of(raw, _batch(z), config)
        result = losses(raw.requires_grad_(), _logits(raw, z), _batch(z), remembering(remembered), 0, config)
    parts = [result.segments.candidates, *remembered]
    propagated = torch.cat([part.propagated for part in parts]).numpy()
    wanted = np.where(z["mid_multihot"].any(axis=1), z["mid_multihot"].argmax(axis=1), UNLABELLED)
    exact = {
        "mid_cluster_index": pixels.segment,
        "mid_cluster_batch_index": pixels.image,
        "mid_all_semantic": torch.cat([part.semantic for part in parts]),
    }
    rows = [(name, float((ours.numpy() != z[name]).sum()), 0) for name, ours in exact.items()]
    rows.append(("mid_multihot", float((propagated != wanted).sum()), 0))
    rows.append(("one class at most", float((z["mid_multihot"].sum(axis=1) > 1).sum()), 0))
    close = {
        "mid_all_prototype_with_loc": segments.prototype_feature.detach().numpy(),
        "mid_cluster_embedding_with_loc": pixels.feature.detach().numpy(),
    }
    rows += [(name, float(np.abs(ours - z[name][: len(ours)]).max()), 2e-6) for name, ours in close.items()]
    return rows


def g_densepose(z):
    """DensePose's relations: in float32, and as exactly as the reference in float64."""
    return [
        *_densepose_middle(z),
        *_densepose_rows(z, torch.float32, 1e-6, 2e-6),
        # The reference subtracts the own segment from a sum, which costs it digits in float64 too.
        *_densepose_rows(z, torch.float64, 1e-9, 1e-8),
    ]
