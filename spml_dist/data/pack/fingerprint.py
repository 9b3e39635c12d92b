"""What a pack is made from, in a line: an interrupted pack is gone on with only if nothing of it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_dist import __version__

_FREE = ("run", "open_recipe", "out", "json", "workers", "strict", "debug")
"""options of `spml-dist pack` that do not decide the bytes of a tar"""
_FILES = ("labels_from", "contours")


def fingerprint(options: Mapping[str, Any], ids: Sequence[str] = ()) -> str:
    """Of all that decides the bytes of a pack, the content of its images and annotations excepted.

    options: those of `spml-dist pack` by name; a file among them counts by its content, wherever it lies.
    """
    deciding = {name: str(value) for name, value in options.items() if name not in _FREE}
    if "dir" in deciding:
        deciding["dir"] = str(Path(options["dir"]).resolve())
    for name in _FILES:
        if path := options.get(name):
            deciding[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return json.dumps([__version__, deciding, ids], sort_keys=True)
