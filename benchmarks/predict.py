"""Prediction with one and two workers, and beside a plain loop: `python -m benchmarks.predict --json OUT`.

An untrained network of configs/gid15_scribble.yaml labels generated images of 384 × 384 pixels from JPEG
files; masks alone are written. The plain loop reads the same files with Pillow, runs the same network on
batches of the same size, resizes its scores, takes the largest and writes a PNG, in one thread. Rates leave
out what comes before the first result; a ratio is the median over repetitions taken in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from spml_dist.config import load
from spml_dist.inference.image_sources import find_images
from spml_dist.inference.predict_images import PredictSettings, predict_images
from spml_dist.inference.trained_model import load_model
from spml_dist.model import export
from spml_dist.model.segmenter import build

SIDE, CLASSES, BATCH = 384, 15, 4
CONFIG = Path(__file__).parents[1] / "configs" / "gid15_scribble.yaml"


def prepare(folder: Path, images: int) -> tuple[Path, Path]:
    """(model, images): an export of an untrained network, and JPEG files of smooth colours."""
    config = load(CONFIG, ["data.train=unused"]).model
    names = [f"class {number}" for number in range(CLASSES)]
    network = build(config.model_copy(update={"pretrained": False}), CLASSES, seed=0)
    export.save(network.state_dict(), folder / "model", config, names, None, 0)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / "images" / f"{number:03d}.jpg")
    return folder / "model", folder / "images"


@torch.inference_mode()
def plain(model: Path, images: Path, out: Path) -> float:
    """Images a second of a loop as anybody writes it."""
    torch.set_num_threads(1)
    trained = load_model(model, "cpu")
    mean, deviation = (
        torch.tensor(channels)[:, None, None]
        for channels in (trained.network.normalisation.mean, trained.network.normalisation.deviation)
    )
    out.mkdir()
    files = sorted(images.iterdir())
    first, done = 0.0, 0
    for start in range(0, len(files), BATCH):
        together = files[start : start + BATCH]
        arrays = [np.array(Image.open(file).convert("RGB")) for file in together]
        batch = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).float() / 255
        scores = trained.network.classify(trained.network.embed((batch - mean) / deviation))
        labels = interpolate(scores, size=(SIDE, SIDE), mode="bilinear").argmax(dim=1).to(torch.uint8)
        for file, mask in zip(together, labels.numpy(), strict=True):
            Image.fromarray(mask).save(out / f"{file.stem}.png")
        done += len(together) if first else 0
        first = first or time.perf_counter()
    return done / (time.perf_counter() - first)


def predicted(model: Path, images: Path, out: Path, workers: int) -> float:
    """Images a second of `spml-dist predict`."""
    sources, _ = find_images([str(images)])
    settings = PredictSettings(overlays=False, confidence=False)
    found = predict_images(
        model, sources, out, settings, device="cpu", batch=BATCH, workers=workers, progress=False
    )
    return found.images_per_s


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args(argv)
    rates: dict[str, list[float]] = {"plain": [], "one": [], "two": []}
    with tempfile.TemporaryDirectory() as place:
        model, images = prepare(Path(place), args.images)
        for turn in range(args.repetitions):
            outs = {name: Path(place) / f"{name}{turn}" for name in rates}
            rates["plain"].append(plain(model, images, outs["plain"]))
            rates["one"].append(predicted(model, images, outs["one"], workers=1))
            rates["two"].append(predicted(model, images, outs["two"], workers=2))
            print("  ".join(f"{name} {values[-1]:.2f}" for name, values in rates.items()), flush=True)
        same = all(
            (Path(place) / f"one0/masks/{file.stem}.png").read_bytes()
            == (Path(place) / f"two0/masks/{file.stem}.png").read_bytes()
            for file in images.iterdir()
        )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "images": args.images,
        "side": SIDE,
        "batch": BATCH,
        **{f"{name}_images_per_s": value for name, value in medians.items()},
        "ratio_two_workers": _ratio(rates, "two", "one"),
        "ratio_plain": _ratio(rates, "one", "plain"),
        "same_bytes": same,
    }
    print("\n".join(f"{name:20} {value:.4g}" for name, value in result.items()))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


if __name__ == "__main__":
    sys.exit(main())
