"""From a YAML file and overrides to a checked configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from spml_dist.config import document, suggest
from spml_dist.config.document import OVERRIDE, Entry
from spml_dist.config.flatten import leaves, text_of
from spml_dist.config.models import Config
from spml_dist.errors import ConfigError


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the experiment at `path`, with `dotted.key=value` overrides whose values are YAML.

    Raises ConfigError for an absent or broken file, an unknown, missing or repeated key, a value of a wrong
    type or out of range, and values that do not go together.
    """
    return _validated(_read(Path(path), overrides), Path(path))


def origins(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every field; the origin: `FILE:LINE` or `override`. Raises as `load`."""
    found = _read(Path(path), overrides)
    values = leaves(_validated(found, Path(path)))
    return [(key, value, found[key].origin) for key, value in values.items()]


def _read(path: Path, overrides: Sequence[str]) -> dict[str, Entry]:
    found = document.entries(path)
    for text in overrides:
        key, values = _override(text)
        found = {k: v for k, v in found.items() if k != key and not k.startswith(f"{key}.")} | values
    return found


def _override(text: str) -> tuple[str, dict[str, Entry]]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override {text} has no '='", None, "write key=value, such as stream.batch=8")
    if not value.strip():
        raise ConfigError(f"override {key}= has no value", None, f"write {key}=null where null is meant")
    try:
        parsed = document.parse(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{key} on the command line is not YAML", value, "quote it or correct it"
        ) from error
    if key not in suggest.fields():
        raise suggest.unknown(key, Entry(parsed, OVERRIDE), present=suggest.fields())
    return key, dict(_flat(key, parsed))


def _flat(key: str, value: Any) -> list[tuple[str, Entry]]:
    if not isinstance(value, dict) or not value:
        return [(key, Entry(value, OVERRIDE))]
    return [leaf for name, item in value.items() for leaf in _flat(f"{key}.{name}", item)]


def _validated(found: dict[str, Entry], path: Path) -> Config:
    for key, entry in found.items():
        if key not in suggest.fields():
            raise suggest.unknown(key, entry, present=found)
    for key, entry in found.items():
        if suggest.is_section(key):
            raise _unfit(key, entry)
    for key in suggest.fields():
        if not suggest.is_section(key) and key not in found:
            raise suggest.missing(key, path, present=found)
    try:
        return Config.model_validate(_nested(found))
    except ValidationError as error:
        key = next(key for key in _prefixes(error.errors()[0]["loc"]) if key in found)
        raise _unfit(key, found[key]) from error


def _unfit(key: str, entry: Entry) -> ConfigError:
    return ConfigError(f"{key} {entry.place}", text_of(entry.value), suggest.remedy(key))


def _prefixes(location: tuple[str | int, ...]) -> list[str]:
    """The dotted keys that a pydantic error's location may mean, longest first."""
    return [".".join(map(str, location[:length])) for length in range(len(location), 0, -1)]


def _nested(found: dict[str, Entry]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, entry in found.items():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = entry.value
    return tree
