"""Files of published archives, read strictly: lists of ids, JSON, XML and MATLAB files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from spml_dist.data.format.keys import repeated
from spml_dist.errors import DataError

UNPACK_AGAIN = "the file is damaged or unpacked in part: download and unpack its archive again"


def require_folder(root: Path, part: str, remedy: str) -> Path:
    """ROOT/PART. Raises DataError with the remedy (where it comes from) if there is no such folder."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", None, "give the folder that the archives were unpacked in")
    if not (root / part).is_dir():
        raise DataError(f"{root / part}: no such folder", None, remedy)
    return root / part


def read_ids(path: Path, remedy: str) -> tuple[str, ...]:
    """The ids of a list, one a line, in order. Raises DataError if it is missing, empty or repeats an id."""
    try:
        ids = tuple(path.read_text(encoding="utf-8-sig").split())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read", str(error), remedy) from error
    if not ids:
        raise DataError(f"{path}: the list is empty", None, remedy)
    if twice := repeated(ids):
        raise DataError(f"{path}: an image id is there twice", twice, "list every image once")
    return ids


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object. Raises DataError, with the remedy, for anything else."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", None, remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON", str(error), UNPACK_AGAIN) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object", type(content).__name__, remedy)
    return content


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file. Raises DataError for a missing or damaged one."""
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # an unknown encoding, say
        raise DataError(f"{path}: cannot be read as XML", str(error), UNPACK_AGAIN) from error


def read_mat(path: Path, variable: str, remedy: str) -> Any:
    """One variable of a MATLAB file (version 5). Raises DataError if it is damaged or holds others."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except NotImplementedError as error:  # version 7.3, which is HDF5
        raise DataError(f"{path}: not a MATLAB file of version 5", str(error), remedy) from error
    except Exception as error:  # whatever scipy's parser meets in a damaged file
        raise DataError(f"{path}: cannot be read as a MATLAB file", str(error), UNPACK_AGAIN) from error
    if variable not in content:
        names = ", ".join(name for name in content if not name.startswith("__")) or "no variable"
        raise DataError(f"{path}: holds no {variable}", names, remedy)
    return content[variable]
