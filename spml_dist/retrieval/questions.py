"""Many queries from a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spml_dist.errors import ConfigError, DataError
from spml_dist.retrieval.collection import Answer, Collection

KEYS = ("image", "at", "segment", "class")


def answered(collection: Collection, path: Path, limits: dict[str, Any]) -> list[Answer]:
    """Answers to all queries of a file, in their order. limits: as `Collection.query` takes them.

    Raises what that raises, and DataError for what is no query, with the line.
    """
    answers: list[Answer] = []
    for where, question in read(path).items():
        try:
            answers += collection.query(**question, **limits)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{where}: {error.what}", error.value, error.remedy) from error
    return answers


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Arguments of `Collection.query`, one for each line, by file and line; DataError as above."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", problem)
        raise DataError(f"{path}: cannot be read", reason, "give a file of JSON lines") from problem
    named = {f"{path}:{number}": line for number, line in enumerate(lines, start=1) if line.strip()}
    asked = {where: _question(where, line) for where, line in named.items()}
    if not asked:
        raise DataError(f"{path}: no query", None, f"write a JSON object a line, of {', '.join(KEYS)}")
    return asked


def as_json(numbers: dict[str, Any]) -> str:
    """Indented JSON."""
    return json.dumps(numbers, indent=2, ensure_ascii=False)


def _question(where: str, line: str) -> dict[str, Any]:
    remedy = 'write such as {"image": "a.jpg", "at": [12, 30]}, {"segment": "train/a/3"} or {"class": "road"}'
    try:
        question = json.loads(line)
    except ValueError as problem:
        raise DataError(f"{where}: not JSON", problem, remedy) from problem
    if not isinstance(question, dict) or not question or set(question) - set(KEYS):
        raise DataError(f"{where}: not a query", line, remedy)
    for key in {"image", "segment", "class"} & set(question):
        if not isinstance(question[key], str):
            raise DataError(f"{where}: {key} is not text", question[key], remedy)
    at = question.get("at")
    if at is not None and not (
        isinstance(at, list) and len(at) == 2 and all(type(part) is int for part in at)
    ):
        raise DataError(f"{where}: at is not [x, y]", at, remedy)
    values = {"label" if key == "class" else key: value for key, value in question.items()}
    return values | ({"at": tuple(at)} if at else {})
