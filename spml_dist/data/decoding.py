"""Image files decoded strictly. What they carry beside their pixels is laid aside first: EXIF, texts and
colour profiles come in forms that trip up decoders, and of all that only the orientation decides anything.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence

from PIL import Image, ImageFile

from spml_dist.errors import DataError
from spml_dist.files.signatures import recognised

LONGEST = 65_500
"""pixels of a side: packs hold JPEGs, which cannot be longer"""
LARGEST = 178_956_970
"""pixels of an image: half a gigabyte of memory in RGB"""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""that images are read from, whatever their suffix; of several frames or pages the first"""

Image.MAX_IMAGE_PIXELS = None  # LARGEST is compared here, with a message of our own

_PNG, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TITLES = {
    "JPEG": ("a JPEG image",),
    "PNG": ("a PNG image",),
    "WEBP": ("a WebP image",),
    "TIFF": ("a TIFF image", "a BigTIFF image"),
    "BMP": ("a BMP image",),
    "GIF": ("a GIF image",),
}
"""what `recognised` calls files of each format"""
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
"""chunks of a PNG that its pixels need"""
_ORIENTATION = 0x0112
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    content: bytes,
    name: object,
    formats: Sequence[str] = FORMATS,
    check: Callable[[ImageFile.ImageFile], None] = lambda image: None,
    upright: bool = False,
) -> Image.Image:
    """The decoded image of a file's bytes.

    name: of the file, for errors; formats: names of Pillow's decoders; check: is given the image before its
    pixels are read, and raises DataError for one that is of no use; upright: turned as its EXIF orientation
    says. Raises DataError, with what the file really is where that is known, for anything that is no whole
    image of these formats, and for one that is longer than LONGEST or has more than LARGEST pixels.
    """
    plain, exif = _parted(content)
    try:
        with Image.open(io.BytesIO(plain), formats=list(formats)) as image:
            _require_size(image.size, name)
            check(image)
            image.load()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{name}: cannot be decoded", "too little memory", "cut it into tiles") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise _undecodable(name, content, formats, error) from error
    method = _TRANSPOSED.get(_orientation(exif)) if upright and image.format != "TIFF" else None
    return image if method is None else image.transpose(method)  # Pillow itself turns a TIFF


def is_rgb_jpeg(content: bytes) -> bool:
    """Whether a file is a JPEG of red, green and blue, by its header alone."""
    if not content.startswith(_JPEG):
        return False
    try:
        with Image.open(io.BytesIO(_parted(content)[0]), formats=["JPEG"]) as image:
            return image.mode == "RGB"
    except Exception:  # as in decode
        return False


def orientation(content: bytes) -> int:
    """1 for an upright file, 2 to 8 for one whose EXIF says that it is shown mirrored or turned."""
    return _orientation(_parted(content)[1])


def _require_size(size: tuple[int, int], name: object) -> None:
    width, height = size
    if max(size) > LONGEST:
        limit = f"longer than the {LONGEST:,} pixels a side that a pack can hold"
        raise DataError(f"{name}: {limit}", f"{width}×{height}", "cut it into tiles")
    if width * height > LARGEST:
        limit = f"more than the {LARGEST:,} pixels that spml-dist takes of an image"
        raise DataError(f"{name}: {limit}", f"{width}×{height}", "cut it into tiles or reduce it")


def _undecodable(name: object, content: bytes, formats: Sequence[str], error: Exception) -> DataError:
    title, remedy = recognised(content)
    if content and title not in {name for each in formats for name in _TITLES[each]}:
        problem = f"cannot identify an image in it{': it is ' if title else ''}{title}"
    elif content:
        problem, remedy = f"damaged {title.split()[1]}: {error or type(error).__name__}", ""
    else:
        problem = title
    if not remedy:
        form = " or ".join(formats[:2][::-1])
        remedy = f"convert it to {form}" if " image" in problem and "it is" in problem else "replace the file"
    return DataError(f"{name}: cannot be decoded", problem, f"{remedy} or take its id out of the split")


def _orientation(exif: bytes) -> int:
    """Of a block of EXIF; 1 for one that cannot be read, as viewers take it."""
    try:
        block = Image.Exif()
        block.load(exif)
        value = block.get(_ORIENTATION, 1)
    except Exception:  # damaged in any way
        return 1
    return value if value in _TRANSPOSED else 1


def _parted(content: bytes) -> tuple[bytes, bytes]:
    """(the file without what its pixels do not need, its EXIF)."""
    if content.startswith(_PNG):
        return _png_pixels(content)
    if content.startswith(_JPEG):
        return _jpeg_pixels(content)
    if content.startswith(_TIFF):
        return content, content  # EXIF is a TIFF without pixels
    return content, _webp_exif(content) if content.startswith(b"RIFF") else b""


def _png_pixels(content: bytes) -> tuple[bytes, bytes]:
    kept: list[bytes | memoryview] = [_PNG]
    exif = b""
    for kind, chunk in _chunks(content):
        if kind in _PIXELS:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = bytes(chunk[8:-4])
    return b"".join(kept), exif


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(name, whole chunk) of a PNG; what is cut off at its end goes with the last."""
    view, place = memoryview(content), len(_PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", view[place : place + 8])
        yield kind, view[place : place + 12 + length]
        if kind == b"IEND":
            return
        place += 12 + length


def _jpeg_pixels(content: bytes) -> tuple[bytes, bytes]:
    kept: list[bytes | memoryview] = [_JPEG]
    exif, place = b"", 2
    view = memoryview(content)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # fill bytes
            place += 1
            continue
        if marker == 0xDA or 0xD0 <= marker <= 0xD9 or marker in (0x00, 0x01):
            break
        (length,) = struct.unpack(">H", view[place + 2 : place + 4])
        segment = view[place : place + 2 + length]
        if marker == 0xE1 and bytes(segment[4:10]) == b"Exif\0\0":
            exif = exif or bytes(segment[4:])
        if not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE:
            kept.append(segment)  # APP0 and APP14 say how colours are coded
        place += 2 + length
    return b"".join([*kept, view[place:]]), exif


def _webp_exif(content: bytes) -> bytes:
    place = 12
    while place + 8 <= len(content):
        kind, length = struct.unpack("<4sI", content[place : place + 8])
        if kind == b"EXIF":
            return content[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    return b""
