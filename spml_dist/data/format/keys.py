"""Image ids and sample keys.

A tar member is KEY.MEMBER and readers cut at the first dot, so an id with a dot (IMG_2024.05.01) would be
cut in two. Dots and the few other characters that file names cannot carry are written as %XX; ids of
letters, digits, spaces, - and _ (in any script) are their own keys.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_UNSAFE = re.compile(r"[.%/\\:\x00-\x1f\x7f]")


def key_of(image_id: str) -> str:
    """The sample key of an image id: 'a/IMG.1' -> 'a%2FIMG%2E1'."""
    return _UNSAFE.sub(lambda character: f"%{ord(character[0]):02X}", image_id)


def image_id_of(key: str) -> str:
    """The image id of a sample key; the inverse of `key_of`."""
    return unquote(key)
