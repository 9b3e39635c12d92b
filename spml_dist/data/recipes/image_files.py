"""Image files as a recipe finds them: decoded strictly, upright, in RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spml_dist.data.format.keys import spellings
from spml_dist.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr")
_ORIENTATION = 0x0112


def find_image(folder: Path, image_id: str) -> Path:
    """FOLDER/ID with the suffix that exists. Raises DataError if there is none, or more than one."""
    paths = (folder / f"{name}{suffix}" for suffix in SUFFIXES for name in spellings(image_id))
    found = [path for path in paths if path.is_file()]
    for other in found[1:]:
        # Where a file system does not tell capitals apart, both names are one file.
        if not other.samefile(found[0]):
            raise DataError(f"{found[0]}: two images of one id", f"{other} beside it", "rename one of them")
    if found:
        return found[0]
    raise DataError(
        f"{folder / image_id}: no image of this image id",
        None,
        f"add it as {', '.join(SUFFIXES[:3])} or take the id out of the split",
    )


def read_image(path: Path) -> np.ndarray:
    """[H, W, 3] uint8 RGB, turned as its EXIF orientation says; greys and palettes become RGB.

    Raises DataError for an empty, truncated or unknown file and for more than 8 bits a channel.
    """
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            # Of colours with 16 bits, which are cut to their upper 8, only the decoder's raw mode tells.
            deep = [str(tile.args) for tile in image.tile if ";16" in str(tile.args)]
            if deep or image.mode not in _MODES:
                raise DataError(
                    f"{path}: not an image of 8 bits a channel",
                    f"colour mode {deep[0] if deep else image.mode}",
                    "convert it to RGB of 8 bits a channel",
                )
            ImageOps.exif_transpose(image, in_place=True)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        seen = "zero bytes" if path.stat().st_size == 0 else str(error)
        raise DataError(
            f"{path}: cannot be decoded", seen, "replace the image or take its id out of the split"
        ) from error


def is_turned(path: Path) -> bool:
    """Whether the file's EXIF orientation turns or mirrors its pixels."""
    with Image.open(path) as image:
        return image.getexif().get(_ORIENTATION, 1) != 1


def plain_jpeg(path: Path) -> bytes | None:
    """The file's own bytes if they are an upright RGB JPEG, which need not be compressed a second time."""
    with Image.open(path) as image:
        if image.format != "JPEG" or image.mode != "RGB":
            return None
    return None if is_turned(path) else path.read_bytes()
