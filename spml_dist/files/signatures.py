"""What a file really is that is not what its name promises: known by its first bytes."""

from __future__ import annotations

import struct

_DOWNLOAD = "download it again"
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"BM", "a BMP image", ""),
    (b"II*\0", "a TIFF image", ""),
    (b"MM\0*", "a TIFF image", ""),
    (b"II+\0", "a BigTIFF image", ""),
    (b"MM\0+", "a BigTIFF image", ""),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image", ""),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", ""),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image", ""),
    (b"\xff\x0a", "a JPEG XL image", ""),
    (b"8BPS", "a Photoshop file", ""),
    (b"%PDF", "a PDF file", ""),
    (b"\x76\x2f\x31\x01", "an OpenEXR image", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x89HDF", "an HDF5 file", ""),
    (b"PK\x03\x04", "a ZIP archive", ""),
    (b"\x1f\x8b", "a gzip file", ""),
    (b"BZh", "a bzip2 file", ""),
    (b"\xfd7zXZ", "an xz file", ""),
    (b"7z\xbc\xaf", "a 7z archive", ""),
    (b"Rar!", "a RAR archive", ""),
    (b"\0\5\x16\7", "a macOS resource fork, which belongs to another file", "remove it"),
)
"""first bytes, what they say, what to do if that is the same wherever it is met"""

_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC image"),
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"qt  "), "a video"),
}
"""of the container that HEIC, AVIF and videos have in common"""
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def recognised(content: bytes, size: int | None = None) -> tuple[str, str]:
    """(what a file is, what to do), both empty for a content that is not known.

    content: its first bytes, some hundred at least, or all; size: of the file in bytes, None: all is given.
    """
    if not content:
        return "zero bytes", _DOWNLOAD
    for signature, name, remedy in _SIGNATURES:
        if content.startswith(signature):
            return name, remedy
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP image", ""
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], "a video or HEIF image"), ""
    if _is_safetensors(content, len(content) if size is None else size):
        return "a safetensors file", ""
    if not any(content):
        return "nothing but zero bytes", _DOWNLOAD
    return _text(content)


def _is_safetensors(content: bytes, size: int) -> bool:
    """Whether a header of JSON follows its length."""
    if len(content) < 10:
        return False
    (length,) = struct.unpack("<Q", content[:8])
    return 2 <= length <= size - 8 and content[8:].lstrip(b" ").startswith((b'{"', b"{}"))


def _text(content: bytes) -> tuple[str, str]:
    head = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = head.lower()
    if lower.startswith(_PAGES):
        return "an HTML page, which a server gave in the place of the file", _DOWNLOAD
    if lower.startswith(b"<svg") or (lower.startswith(b"<?xml") and b"<svg" in lower):
        return "an SVG drawing", ""
    if lower.startswith(b"<?xml"):
        return "an XML file", ""
    if head.startswith((b"{", b"[")) and _is_text(head):
        return "a JSON text", ""
    return ("a text", "") if _is_text(head) else ("", "")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n" for letter in text)
