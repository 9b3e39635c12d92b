"""Where a sample's regions come from: an over-segmentation of its image, or PNGs that lie ready."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from spml_dist.data.annotations.contour_network import network_contours
from spml_dist.data.annotations.contours import contours
from spml_dist.data.annotations.regions import oversegment
from spml_dist.data.decoding import decode
from spml_dist.data.format.keys import key_of, spelt
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.files.write import replacing

_COUNT = 80
LARGEST = 4_000_000
"""pixels; of a larger image a reduced one is cut, so that time and memory stay bounded"""

RegionSource = Callable[[str, np.ndarray], np.ndarray]
"""image id and [H, W, 3] uint8 -> [H, W] uint16"""


def even_colour(image_id: str, image: np.ndarray) -> np.ndarray:
    """Regions of even colour by Felzenszwalb and Huttenlocher's method."""
    return cut_reduced(image, oversegment)


def cut_reduced(image: np.ndarray, cut: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Regions [H, W] uint16 of an image [H, W, 3] uint8, made from a smaller one where it is very large.

    cut: image -> regions of its size. An image of at most LARGEST pixels is cut as it is; else its mean
    over areas, and the regions are enlarged to the nearest neighbour.
    """
    height, width = image.shape[:2]
    scale = (LARGEST / (height * width)) ** 0.5
    if scale >= 1:
        return cut(image)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(cut(small), (width, height), interpolation=cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Nested:
    """Regions between contours: so many, or those at a level of their hierarchy."""

    count: int = _COUNT
    level: float | None = None
    """0..1; where it is given, count is not used"""
    network: Path | None = None
    """ONNX file of a contour network; None: colour and texture gradients"""
    keep: Path | None = None
    """folder to which every image's ultrametric contour map is written (of a very large one, reduced)"""

    def __call__(self, image_id: str, image: np.ndarray) -> np.ndarray:
        """[H, W] uint16."""
        return cut_reduced(image, lambda image: self._cut(image_id, image))

    def _cut(self, image_id: str, image: np.ndarray) -> np.ndarray:
        # Here, because higra brings a plotting library along, a second that other regions need not wait.
        from spml_dist.data.annotations.ucm import contour_map, cut_at, cut_to, hierarchy

        edges = contours(image) if self.network is None else network_contours(image, self.network)
        nested = hierarchy(edges, image)
        if self.keep is not None:
            _write_png(self.keep / f"{key_of(image_id)}.png", contour_map(nested))
        return cut_to(nested, self.count) if self.level is None else cut_at(nested, self.level)


@dataclass(frozen=True)
class Ready:
    """FOLDER/ID.png of region ids, as they stand."""

    folder: Path

    def __call__(self, image_id: str, image: np.ndarray) -> np.ndarray:
        """[H, W] uint16. Raises DataError for a file that is not there, no such PNG, or of another size."""
        path = spelt(self.folder, f"{image_id}.png")
        regions = _read_ids(path)
        if regions.shape != image.shape[:2]:
            sizes = (f"{shape[1]}×{shape[0]}" for shape in (image.shape, regions.shape))
            raise DataError(
                f"{path}: image and regions differ in size",
                " and ".join(sizes) + " pixels",
                "make the regions from the image as it is shown",
            )
        return regions


def region_source(spec: str, network: Path | None = None, keep: Path | None = None) -> RegionSource:
    """`felzenszwalb`, `ucm`, `ucm:COUNT`, `ucm@LEVEL`, or a folder of PNGs.

    network, keep: of `Nested`. Raises ConfigError for anything else, and for either of them without ucm.
    """
    nested = re.fullmatch(r"ucm(?::(\d+)|@(\d*\.?\d+))?", spec)
    if (network or keep) and not nested:
        raise ConfigError("--contours and --keep-contours", f"--regions {spec}", "use them with ucm")
    if nested:
        return _nested(spec, nested[1], nested[2], network, keep)
    if spec == "felzenszwalb":
        return even_colour
    if Path(spec).is_dir():
        return Ready(Path(spec))
    raise ConfigError(
        "--regions", spec, "use felzenszwalb, ucm, ucm:COUNT, ucm@LEVEL, or a folder that holds ID.png"
    )


def describe(source: RegionSource, spec: str, network: Path | None = None) -> str:
    """How a manifest says where regions come from. spec, network: what `region_source` made the source of."""
    if isinstance(source, Ready):  # where the folder lies says nothing elsewhere, what it is called may
        return f"folder {source.folder.resolve().name}"
    return f"{spec}, contours by {network.name}" if network else spec


def _nested(
    spec: str, count: str | None, level: str | None, network: Path | None, keep: Path | None
) -> Nested:
    if count is not None and not 1 <= int(count) <= 65535:
        raise ConfigError("--regions", spec, "ask for 1 to 65535 regions")
    if level is not None and not 0 <= float(level) <= 1:
        raise ConfigError("--regions", spec, "a level lies in 0..1")
    if network:
        network_contours(np.zeros((64, 64, 3), np.uint8), network)  # a wrong file is refused at once
    return Nested(int(count or _COUNT), None if level is None else float(level), network, keep)


def _read_ids(path: Path) -> np.ndarray:
    remedy = "write region ids as a grey PNG of 8 or 16 bits"

    def check(image: Image.Image) -> None:
        if image.mode not in ("L", "P", "I;16"):
            raise DataError(f"{path}: not a PNG of region ids", f"colour mode {image.mode}", remedy)

    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no regions of this image", None, remedy) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read", error.strerror, remedy) from error
    return np.array(decode(content, path, ["PNG"], check)).astype(np.uint16)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            aside.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    except OSError as error:  # no fault of the image's: nothing is rejected for it
        remedy = "make room, choose another --keep-contours or leave it out; the same command goes on"
        raise RunError(f"{path}: cannot be written", error.strerror, remedy) from error
