"""Image files as a recipe finds them: decoded strictly, upright, in RGB."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import ImageFile

from spml_dist.data.decoding import decode, is_rgb_jpeg, orientation
from spml_dist.data.format.keys import spellings
from spml_dist.errors import DataError

LOWER_SUFFIXES = (".jpg", ".jpeg", ".png", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif")
SUFFIXES = (*LOWER_SUFFIXES, *map(str.upper, LOWER_SUFFIXES))
_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "RGBX")


def find_image(folder: Path, image_id: str) -> Path:
    """FOLDER/ID with the suffix that exists. Raises DataError if there is none, or more than one."""
    candidates = (folder / f"{name}{suffix}" for suffix in SUFFIXES for name in spellings(image_id))
    paths = [path for path in candidates if path.is_file()]
    for other in paths[1:]:
        # Where a file system does not tell capitals apart, both names are one file.
        if not other.samefile(paths[0]):
            raise DataError(f"{paths[0]}: two images of one id", f"{other} beside it", "rename one of them")
    if paths or (paths := _of_other_case(folder / image_id)):
        return paths[0]
    raise DataError(
        f"{folder / image_id}: no image of this image id",
        None,
        f"add it as {', '.join(SUFFIXES[:3])} or take the id out of the split",
    )


def _of_other_case(stem: Path) -> list[Path]:
    """Files of that name whose suffix is written in capitals here and there, such as .Jpg."""
    try:
        names = _listed(stem.parent, stem.parent.stat().st_mtime_ns)
    except OSError:
        return []
    return [stem.parent / name for name in names.get(stem.name, ())]


@lru_cache(maxsize=4)
def _listed(folder: Path, changed: int) -> dict[str, list[str]]:
    """Names of a folder's images by the part before the suffix."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            names.setdefault(stem, []).append(name)
    return names


def read_image(path: Path) -> np.ndarray:
    """[H, W, 3] uint8 RGB, turned as its EXIF orientation says; greys and palettes become RGB.

    Of an animation, and of a file of several pages, the first is taken. Raises DataError for an empty,
    truncated or unknown file, for more than 8 bits a channel, and for one that is too long or too large
    (`spml_dist.data.decoding`).
    """
    return decode_image(_content(path), path)


def decode_image(content: bytes, name: object) -> np.ndarray:
    """The same of a file's bytes. name: of the file, for errors."""
    image = decode(content, name, check=partial(_require_eight_bits, name), upright=True)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read", error.strerror, "rename it or take its id out of the split"
        ) from error


def _require_eight_bits(name: object, image: ImageFile.ImageFile) -> None:
    # Of colours with 16 bits, which are cut to their upper 8, only the decoder's raw mode tells.
    deep = [str(tile.args) for tile in image.tile if image.format != "BMP" and ";16" in str(tile.args)]
    if deep or image.mode not in _MODES:
        raise DataError(
            f"{name}: not an image of 8 bits a channel",
            f"colour mode {deep[0] if deep else image.mode}",
            "convert it to RGB of 8 bits a channel",
        )


def is_turned(path: Path) -> bool:
    """Whether the file's EXIF orientation turns or mirrors its pixels."""
    return orientation(_content(path)) != 1


def plain_jpeg(path: Path) -> bytes | None:
    """The file's own bytes if they are an upright RGB JPEG, which need not be compressed a second time."""
    content = _content(path)
    return content if is_rgb_jpeg(content) and orientation(content) == 1 else None
