"""Regions beside what people outlined: `python -m benchmarks.regions --root DIR --split SPLIT --json OUT`.

DIR holds images/ID.jpg, segs/ID_K.png (region ids of person K) and SPLIT.txt, as BSDS500 is laid out here.
Contour hierarchies, SLIC and Felzenszwalb are set to the same average number of regions over the split;
SLIC and Felzenszwalb reach it by a search over their one parameter on the same images. Every number is the
mean over people, then over images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb, slic

from spml_dist.data.annotations.contours import contours
from spml_dist.data.annotations.quality import achievable_accuracy, boundary_recall, undersegmentation_error
from spml_dist.data.annotations.ucm import cut_to, hierarchy
from spml_dist.data.recipes.image_files import find_image, read_image
from spml_dist.errors import DataError, SpmlError
from spml_dist.progress import progress_bar

TARGETS = (40, 80, 160)
MEASURES = {
    "boundary_recall": boundary_recall,
    "undersegmentation_error": undersegmentation_error,
    "achievable_accuracy": achievable_accuracy,
}
_CLOSE, _ATTEMPTS = 0.02, 6


@dataclass(frozen=True)
class Outlined:
    """An image and what people outlined in it."""

    image: np.ndarray
    people: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Cut:
    """Regions of one image and what they cost."""

    regions: np.ndarray
    seconds: float


Method = Callable[[np.ndarray, int, float], np.ndarray]
"""(image, target, fineness) -> regions; there are more of them where the fineness is higher"""


def ucm(image: np.ndarray, target: int, fineness: float) -> np.ndarray:
    """Exactly as many as asked for."""
    return cut_to(hierarchy(contours(image), image), target)


def slic_regions(image: np.ndarray, target: int, fineness: float) -> np.ndarray:
    """Of the compactness that was the best of 5, 10 and 20 on the training split."""
    return slic(image, n_segments=max(1, round(target * fineness)), compactness=20, start_label=0)


def felzenszwalb_regions(image: np.ndarray, target: int, fineness: float) -> np.ndarray:
    """Without regions below a sixth of the average, which on the training split helps more than it costs."""
    smallest = image.shape[0] * image.shape[1] // (6 * target)
    return felzenszwalb(image, scale=8000 / (target * fineness), sigma=0.8, min_size=smallest)


METHODS: dict[str, Method] = {"ucm": ucm, "slic": slic_regions, "felzenszwalb": felzenszwalb_regions}


def read(root: Path, split: str, images: int | None = None) -> list[Outlined]:
    """Images of a split that somebody outlined. Raises DataError if there is none."""
    listed = root / f"{split}.txt"
    if not listed.is_file():
        raise DataError(f"{listed}: no such split", None, "give --root the folder with images/ and segs/")
    found = []
    for image_id in listed.read_text(encoding="utf-8").split()[:images]:
        people = tuple(_ids(path) for path in sorted((root / "segs").glob(f"{image_id}_*.png")))
        if people:
            found.append(Outlined(read_image(find_image(root / "images", image_id)), people))
    if not found:
        raise DataError(f"{root / 'segs'}: no segmentations of {split}", None, "add ID_0.png, ID_1.png, ...")
    return found


def matched(name: str, target: int, images: Sequence[Outlined]) -> list[Cut]:
    """Regions by a method, set so that their average number comes as near to the target as was found."""
    fineness = 1.0
    # A quarter of the images finds the setting nearly; all of them are then cut once or twice.
    for part in (images[::4], images) if name != "ucm" else (images,):
        nearest, cuts = np.inf, []
        for _ in range(_ATTEMPTS):
            found = _cut(name, target, fineness, part)
            average = _average(found)
            if abs(average / target - 1) < nearest:
                nearest, cuts, best = abs(average / target - 1), found, fineness
            if name == "ucm" or nearest <= _CLOSE:
                break
            fineness *= target / average
        fineness = best
    return cuts


def row(name: str, target: int, images: Sequence[Outlined]) -> dict[str, float | str]:
    """One line of the table."""
    cuts = matched(name, target, images)
    scores = {
        measure: float(
            np.mean([_mean_over_people(score, cut, image) for cut, image in zip(cuts, images, strict=True)])
        )
        for measure, score in MEASURES.items()
    }
    return {
        "method": name,
        "target": target,
        "regions": _average(cuts),
        **scores,
        "seconds_per_image": float(np.mean([cut.seconds for cut in cuts])),
    }


def _mean_over_people(score: Callable[..., float], cut: Cut, image: Outlined) -> float:
    return float(np.mean([score(cut.regions, truth) for truth in image.people]))


def _cut(name: str, target: int, fineness: float, images: Sequence[Outlined]) -> list[Cut]:
    cuts = []
    for index, image in enumerate(progress_bar(images, f"{name} at {target}")):
        start = time.process_time()
        regions = METHODS[name](image.image, target, fineness * (_varied(index) if name == "slic" else 1))
        cuts.append(Cut(regions, time.process_time() - start))
    return cuts


def _varied(index: int) -> float:
    """0.85 to 1.15, evenly: SLIC's number jumps with its grid; an average over grids can be chosen finely."""
    return 0.85 + 0.3 * (index * 0.618034 % 1)


def _average(cuts: Sequence[Cut]) -> float:
    return float(np.mean([len(np.unique(cut.regions)) for cut in cuts]))


def _ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


def _printed(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--images", type=int, help="only the first so many, for a quick look")
    args = parser.parse_args(argv)
    cv2.setNumThreads(0)
    try:
        images = read(args.root, args.split, args.images)
    except SpmlError as error:
        print(error, file=sys.stderr)
        return error.status
    rows = []
    for name in METHODS:
        for target in TARGETS:
            rows.append(row(name, target, images))
            print("  ".join(f"{key} {_printed(value)}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        args.json.write_text(
            json.dumps({"split": args.split, "images": len(images), "rows": rows}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
