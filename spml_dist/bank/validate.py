"""What the bank refuses to remember."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.bank.rows import BITS
from spml_dist.bank.store import too_large
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.records import BankRows


def refusal(
    rows: BankRows, classes: int, largest: int, partitions: int, keys: Sequence[str]
) -> RunError | None:
    """What is wrong with the rows of whole images, or None. keys: sample keys of the images, for the message.

    largest: rows that a partition can hold, of `partitions` in all.
    """
    faults = {
        "an embedding that is not finite": ~torch.isfinite(rows.vector).all(dim=1),
        f"a class outside -1..{classes - 1}": (rows.label < -1) | (rows.label >= classes),
        f"tags outside 0..{classes - 1}": _beyond(rows.tags, classes),
    }
    for fault, where in faults.items():
        if where.any():
            image, segment = (getattr(rows, name)[where][0].item() for name in ("image", "segment"))
            named = dict(zip(image_hash(keys).tolist(), keys, strict=True))
            return RunError(
                f"image {named.get(image, image)}: segment {segment} has {fault}; the bank took nothing",
                None,
                "lower optimizer.lr, or mend the image's labels and pack again (and give another name=)",
            )
    if len(rows):
        visits = torch.stack([rows.image, rows.position.long()])  # an image may be twice in a batch
        most = torch.unique(visits, dim=1, return_counts=True)[1].max().item()
        if most > largest:
            return too_large(most, largest, partitions)
    return None


def _beyond(tags: Tensor, classes: int) -> Tensor:
    """[N] bool: whether a bit beyond the classes is set."""
    spare = tags.shape[1] * BITS - classes
    return (tags < 0).any(dim=1) | (tags[:, -1] >> (BITS - spare) != 0)
