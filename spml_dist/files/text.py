"""Texts that people write: UTF-8, with a byte-order mark or without, as lines or as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from spml_dist.errors import DataError

SAVE_AGAIN = "save it as UTF-8"
_COMMA_TOO_MANY = re.compile(r",\s*[]}]")


def read_lines(path: Path, remedy: str) -> list[str]:
    """The lines that are not empty, without the white space around them. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        todo = SAVE_AGAIN if isinstance(error, UnicodeDecodeError) else remedy
        raise DataError(f"{path}: cannot be read", str(error), todo) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds. Raises DataError, also for an object that has a name twice."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=partial(_object, path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", None, remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as JSON", str(error), SAVE_AGAIN) from error
    except (OSError, ValueError, RecursionError) as error:
        todo = f"is there a comma too many? {remedy}" if _has_comma_too_many(error) else remedy
        raise DataError(f"{path}: cannot be read as JSON", str(error), todo) from error


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise DataError(f"{path}: a name is there twice", twice, "join what it says into one entry")
    return entries


def _has_comma_too_many(error: Exception) -> bool:
    """Whether a comma that nothing follows is what the decoder stopped at."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return bool(_COMMA_TOO_MANY.match(error.doc, max(0, error.doc.rfind(",", 0, error.pos + 1))))
