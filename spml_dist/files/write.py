"""What the verbs write beside what they print."""

from __future__ import annotations

import os
from pathlib import Path

from spml_dist.errors import RunError


def write_text(path: Path, text: str) -> None:
    """Write aside and rename into place. Raises RunError if that cannot be done."""
    aside = path.with_name(f"{path.name}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written", error.strerror, "choose a writable place") from error
