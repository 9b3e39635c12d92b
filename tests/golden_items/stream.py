"""Golden items of the stream: each function compares one item's arrays with the package."""

from __future__ import annotations

import numpy as np

from spml_dist.data.stream.augment import augment


def q_augment(z) -> list[tuple[str, float, float]]:
    """Mirror, scale, pad and crop under given seeds; rows are (name, worst error, tolerance)."""
    worst, mismatches = 0.0, 0
    maps = tuple(np.ascontiguousarray(z["label"][..., i]) for i in range(z["label"].shape[-1]))
    cases = [name.removeprefix("seed_") for name in z.files if name.startswith("seed_")]
    for case in cases:
        rng = np.random.RandomState(int(z[f"seed_{case}"]))
        crop = tuple(int(side) for side in z["crop"])
        image, labels, _ = augment(z["image"], maps, rng, crop, (0.5, 1.5), True)
        worst = max(worst, float(np.abs(image - z[f"image_{case}"]).max()))
        mismatches += int((np.stack(labels, axis=-1) != z[f"label_{case}"]).sum())
    found = float(not cases)
    return [("cases missing", found, 0.0), ("image", worst, 1e-5), ("label", float(mismatches), 0.0)]
