"""Image ids and sample keys.

A tar member is KEY.MEMBER and readers cut at the first dot, so an id with a dot (IMG_2024.05.01) would be
cut in two. Dots and the few other characters that file names cannot carry are written as %XX; ids of
letters, digits, spaces, - and _ (in any script) are their own keys.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

LONGEST = 1000
"""bytes of a key in UTF-8; a tar would take more, but nobody's file system does"""

_UNSAFE = re.compile(r"[.%/\\:\x00-\x1f\x7f]")


def key_of(image_id: str) -> str:
    """The sample key of an image id: 'a/IMG.1' -> 'a%2FIMG%2E1'."""
    return _UNSAFE.sub(lambda character: f"%{ord(character[0]):02X}", image_id)


def image_id_of(key: str) -> str:
    """The image id of a sample key; the inverse of `key_of`."""
    return unquote(key)


def spellings(name: str) -> tuple[str, ...]:
    """A name as it is, then in the other forms that Unicode has for the same letters (NFC, NFD).

    Editors write one form, some systems' files have the other; nobody sees the difference.
    """
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return tuple(dict.fromkeys(forms))


def same_letters(name: str) -> str:
    """The one form by which names of the same letters are compared."""
    return unicodedata.normalize("NFC", name)


def repeated(ids: Sequence[str]) -> str | None:
    """The first of the ids that is there twice, be it in another form of Unicode; None = all differ."""
    earlier: set[str] = set()
    for image_id in ids:
        if (letters := same_letters(image_id)) in earlier:
            return image_id
        earlier.add(letters)
    return None


def is_text(name: str) -> bool:
    """Whether a name of a JSON file can be written: halves of characters, as \\ud800, and zeros cannot."""
    return "\0" not in name and not any("\ud800" <= letter <= "\udfff" for letter in name)


def spelt(folder: Path, name: str) -> Path:
    """FOLDER/NAME in the spelling that is there, as it was given where none is."""
    paths = [folder / each for each in spellings(name)]
    return next((path for path in paths if os.path.isfile(path)), paths[0])
