"""Which of the bank's rows join a step's candidates: a function of the global batch, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spml_dist.bank.identity import uniform
from spml_dist.bank.store import Store
from spml_dist.schema import Neighbours


def nearest_of_all(found: Sequence[Neighbours], most: int) -> tuple[Tensor, Tensor]:
    """At most `most` rows out of everybody's neighbours: (image, segment), [m] each, sorted by both.

    First come the rows that are somebody's nearest, then the second nearest, and so on; among equals the
    more similar ones, then by image and segment.
    """
    if not found:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    image, segment, similarity = (
        torch.cat([getattr(each, name).flatten() for each in found]).cpu().numpy()
        for name in ("image", "segment", "similarity")
    )
    place = np.concatenate([np.tile(np.arange(e.image.shape[1]), len(e.image)) for e in found])
    met = segment >= 0
    image, segment, similarity, place = image[met], segment[met], similarity[met], place[met]
    # A row's best place comes first, and of the same place its best similarity.
    order = np.lexsort((-similarity, place, segment, image))
    image, segment, similarity, place = image[order], segment[order], similarity[order], place[order]
    first = np.ones(len(image), bool)
    first[1:] = (np.diff(image) != 0) | (np.diff(segment) != 0)
    image, segment, similarity, place = image[first], segment[first], similarity[first], place[first]
    kept = np.sort(np.lexsort((segment, image, -similarity, place))[:most])
    device = found[0].image.device
    return torch.from_numpy(image[kept]).to(device), torch.from_numpy(segment[kept]).to(device)


def turn(image: Tensor, segment: Tensor, most: int, seed: int, step: int) -> Tensor:
    """Which of a step's segments look up their neighbours, ascending: all, or a draw of `most` of them."""
    if len(image) <= most:
        return torch.arange(len(image), device=image.device)
    return torch.argsort(uniform(seed, step, image, segment), stable=True)[:most].sort().values


def held(store: Store, image: Tensor, segment: Tensor) -> Tensor:
    """Slots of those of the rows that a store has, [≤ m] int64."""
    slots = []
    for number, which in zip(image.tolist(), segment.tolist(), strict=True):
        own = store.slots_of(number)
        if which < len(own):
            slots.append(own[which])
    return torch.tensor(slots, dtype=torch.int64, device=image.device)


def drawn(store: Store, slots: Tensor, share: float, seed: int, step: int) -> Tensor:
    """Those of the slots whose rows this step draws: each with probability `share`, by its own hash."""
    chance = uniform(seed, step, store.rows.image[slots], store.rows.segment[slots])
    return slots[chance < share]
