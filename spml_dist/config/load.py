"""From a YAML file and overrides to a checked configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from spml_dist.config import document, migrations, suggest
from spml_dist.config.document import DEFAULT, OVERRIDE, Setting
from spml_dist.config.flatten import text_of
from spml_dist.config.models import Config
from spml_dist.config.strict import Section
from spml_dist.errors import ConfigError

S = TypeVar("S", bound=Section)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the experiment at `path`, with `dotted.key=value` overrides whose values are YAML; a key that
    neither gives has its default, and one of an earlier release means what it meant there.

    Raises ConfigError for an absent or broken file, an unknown or repeated key, a missing one that has no
    default, a value of a wrong type or out of range, and values that do not go together.
    """
    return explain(path, overrides)[0]


def explain(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, dict[str, str]]:
    """The experiment, and where the value of every dotted key comes from: `default`, `FILE:LINE` or
    `override`. Raises as `load`."""
    if isinstance(overrides, str):
        raise ConfigError("overrides are one text", overrides, f"give a list: [{overrides!r}]")
    # Before the overrides: an old name in the file and today's on the command line are one key.
    settings = migrations.migrated(document.settings(Path(path)))
    for text in overrides:
        settings |= _override(text)
    _require_known(settings)  # before what is missing: a misspelt key is both
    for key in suggest.fields():
        if suggest.is_required(key) and not suggest.is_section(key) and key not in settings:
            raise suggest.missing(key, Path(path), present=settings)
    origins = {
        key: settings[key].origin if key in settings else DEFAULT
        for key in suggest.fields()
        if not suggest.is_section(key)
    }
    return _validated(Config, settings, ""), origins


def expanded(overrides: Iterable[str]) -> list[str]:
    """Overrides with `section={key: value}` as `section.key=value`, one for each key; others, and what cannot
    be read, as they are."""
    return [each for text in overrides for each in _expanded(text)]


def _expanded(text: str) -> Iterator[str]:
    key, _, value = text.partition("=")
    try:
        parsed = document.parse(value) if suggest.is_section(key) else None
        leaves = dict(_leaves(key, parsed, OVERRIDE)) if isinstance(parsed, dict) else {}
        values = {
            name: json.dumps(leaf.value, ensure_ascii=False, allow_nan=False) for name, leaf in leaves.items()
        }
    except document.UNREADABLE:
        values = {}
    yield from (f"{name}={value}" for name, value in values.items()) if values else (text,)


def read_section(name: str, model: type[S], values: Any, path: Path) -> S:
    """One section of an experiment as it was written into a JSON file of its own.

    values: what the file holds under `name`. Keys that it lacks have their defaults, older ones are migrated.
    Raises ConfigError for a key or value that cannot be used.
    """
    settings = migrations.migrated(dict(_leaves(name, values, str(path))))
    _require_known(settings)
    return _validated(model, settings, f"{name}.")


def _override(text: str) -> dict[str, Setting]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override {text} has no '='", None, "write key=value, such as stream.batch=8")
    if not value.strip():
        raise ConfigError(f"override {key}= has no value", None, f"write {key}=null where null is meant")
    try:
        parsed = document.parse(value)
    except document.UNREADABLE as error:
        raise ConfigError(
            f"{key} on the command line is not YAML", value, "quote it or correct it"
        ) from error
    if key not in suggest.fields() and not migrations.is_old(key):
        raise suggest.unknown(key, Setting(parsed, OVERRIDE), present=suggest.fields())
    if number := document.number_text(parsed, value):
        settings = {key: Setting(parsed, OVERRIDE, number)}
    else:
        settings = dict(_leaves(key, parsed, OVERRIDE))
    current = migrations.migrated(settings)
    # A file is silent about old names, being a record; who types one learns the new.
    for old in filter(migrations.is_old, settings):
        print(f"spml-dist: {migrations.notice(old)}", file=sys.stderr)
    return current


def _leaves(key: str, value: Any, origin: str) -> Iterator[tuple[str, Setting]]:
    # An empty mapping stays a value, which no key takes; as no setting at all it would go unnoticed.
    if not isinstance(value, dict) or not value:
        yield key, Setting(value, origin)
    else:
        for name, item in value.items():
            yield from _leaves(f"{key}.{name}", item, origin)


def _require_known(settings: Mapping[str, Setting]) -> None:
    """Raise ConfigError for a key that is none, or that is a section and has a value."""
    for key, setting in settings.items():
        if key not in suggest.fields():
            raise suggest.unknown(key, setting, present=settings)
    for key, setting in settings.items():
        if suggest.is_section(key):
            raise _unfit(key, setting)


def _validated(model: type[S], settings: Mapping[str, Setting], prefix: str) -> S:
    """The model whose fields `settings` hold under `prefix`."""
    # Dates and numbers of jobs are names: 20240512 and 007 are meant as they are written.
    settings = {key: _as_text(each) if suggest.is_text(key) else each for key, each in settings.items()}
    try:
        return model.model_validate(_nested(settings, prefix))
    except ValidationError as error:
        # The location may go on below the key, into an item of a list or an alternative of its type.
        location = error.errors()[0]["loc"]
        key = next(key for key in _prefixes(prefix, location) if key in settings)
        raise _unfit(key, settings[key]) from error


def _as_text(setting: Setting) -> Setting:
    return setting if setting.text is None else replace(setting, value=setting.text)


def _unfit(key: str, setting: Setting) -> ConfigError:
    return ConfigError(f"{key} {setting.place}", text_of(setting.value), suggest.remedy(key))


def _prefixes(prefix: str, location: Sequence[str | int]) -> Iterable[str]:
    """The dotted keys that a pydantic error's location may mean, longest first."""
    return (prefix + ".".join(map(str, location[:length])) for length in range(len(location), 0, -1))


def _nested(settings: Mapping[str, Setting], prefix: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, setting in settings.items():
        *sections, name = key.removeprefix(prefix).split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = setting.value
    return tree
