"""A configuration as dotted keys, as YAML text, and as the difference of two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from spml_dist.config.document import UNREADABLE, parse
from spml_dist.config.models import Config

Scalar = str | int | float | bool | None
COMMENTS = 44
"""column, counted from 0, in which origins stand at the furthest, but for lines that are longer"""


def leaves(config: Config) -> dict[str, Any]:
    """Dotted key → value, in the order of the sections; lists are tuples."""
    return {key: value for _, key, value in _walk(config, "", 0) if key is not None}


def flatten(config: Config) -> dict[str, Scalar]:
    """Dotted key → scalar, in the order of the sections; lists are JSON text."""
    return {k: json.dumps(v) if isinstance(v, tuple) else v for k, v in leaves(config).items()}


def differences(a: Config, b: Config) -> list[tuple[str, Scalar, Scalar]]:
    """(dotted key, value in `a`, value in `b`) of every field that differs."""
    left, right = flatten(a), flatten(b)
    return [(key, left[key], right[key]) for key in left if left[key] != right[key]]


def dump(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """YAML text of every key that `load` reads back as an equal configuration.

    origins: dotted key → where its value comes from, written behind it as a comment.
    """
    written = lines(config)
    if origins is None:
        return "".join(f"{text}\n" for text, _ in written)
    width = min(COMMENTS, max(len(text) for text, _ in written) + 2)
    return "".join(
        f"{text:{width - 2}}  # {_printable(origins[key])}\n" if key else f"{text}\n" for text, key in written
    )


def _printable(text: str) -> str:
    # A line break in a file's name would end the comment, and YAML allows control characters nowhere.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def lines(config: Config) -> list[tuple[str, str | None]]:
    """Each line of the YAML text with the dotted key of its value (None for the head of a section)."""
    return [(text, key) for text, key, _ in _walk(config, "", 0)]


def text_of(value: Any) -> str:
    """One line of YAML for a value."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(text_of(item) for item in value)}]"
    if isinstance(value, str):
        style = None if _is_plain(value) else '"'
        return (
            yaml.safe_dump(value, default_style=style, width=float("inf"), allow_unicode=True)
            .removesuffix("...\n")
            .strip("\n")
        )
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()


def _is_plain(text: str) -> bool:
    """Whether this and any YAML 1.1 reader take the bare text as that text, as a value and in a list."""
    try:
        return all(
            read(f"a: {text}") == {"a": text} and read(f"[{text}]") == [text]
            for read in (parse, yaml.safe_load)
        )
    except UNREADABLE:
        return False


def _walk(model: BaseModel, prefix: str, depth: int) -> Iterator[tuple[str, str | None, Any]]:
    for name in type(model).model_fields:
        value, indent = getattr(model, name), "  " * depth
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:", None, None
            yield from _walk(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{indent}{name}: {text_of(value)}", prefix + name, value
