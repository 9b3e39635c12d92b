"""What to tell the user about a key: what it takes, and which valid key a wrong one is nearest to."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from spml_dist.config.document import Setting
from spml_dist.config.flatten import text_of
from spml_dist.config.models import Config
from spml_dist.config.strict import Section
from spml_dist.errors import ConfigError


@cache
def fields() -> dict[str, type[Section]]:
    """Every dotted key, sections and leaves, in order → the model that owns it."""
    return dict(_fields(Config, ""))


def _fields(model: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in model.model_fields.items():
        yield prefix + name, model
        if section := _section(field):
            yield from _fields(section, f"{prefix}{name}.")


def _section(field: FieldInfo) -> type[Section] | None:
    annotation: Any = field.annotation
    is_one = isinstance(annotation, type) and issubclass(annotation, Section)
    return annotation if is_one else None


def is_section(key: str) -> bool:
    return key in fields() and _section(_field(key)) is not None


def _field(key: str) -> FieldInfo:
    return fields()[key].model_fields[_name(key)]


@cache
def is_text(key: str) -> bool:
    """Whether a key takes any text, and no number."""
    schema = fields()[key].model_json_schema()["properties"][_name(key)]
    options = schema.get("anyOf", [schema])
    kinds = {option.get("type") for option in options}
    free = any(option.get("type") == "string" and not {"enum", "const"} & option.keys() for option in options)
    return free and not kinds & {"integer", "number"}


def is_required(key: str) -> bool:
    return _field(key).is_required()


def sentence(key: str) -> str:
    """What `key` means."""
    return _field(key).description or ""


def takes(key: str) -> str:
    """The values that `key` takes: `expected …` or `allowed: …`."""
    if section := _section(_field(key)):
        return f"expected a section with the keys {', '.join(section.model_fields)}"
    return _takes(fields()[key].model_json_schema()["properties"][_name(key)])


def remedy(key: str) -> str:
    """The values that `key` takes and what it means."""
    return f"{takes(key)}. {sentence(key)}"


def unknown(key: str, setting: Setting, present: Container[str]) -> ConfigError:
    """The error for a key that is not in the models; `present` are the keys that the file has already."""
    value: str | None = text_of(setting.value)
    while "." in key and key.rpartition(".")[0] not in fields():
        # A whole section is wrong: its name is the mistake, and no value of a key in it.
        key, value = key.rpartition(".")[0], None
    return ConfigError(f"{key} {setting.place} is not a configuration key", value, _nearest(key, present))


def missing(key: str, path: Path, present: Container[str]) -> ConfigError:
    """The error for a required key that the file lacks; named by its section if all of that is absent."""
    section = key.rpartition(".")[0]
    while section and _is_absent(section, present):
        key, section = section, section.rpartition(".")[0]
    return ConfigError(f"{key} is missing from {path}", None, f"add it: {remedy(key)}")


def _nearest(key: str, present: Container[str]) -> str:
    """Where the user probably wanted to go: a sibling that the file lacks and that reads much alike, else the
    same name in another section, else a sibling that reads a little alike, else whatever does."""
    section, _, name = key.rpartition(".")
    siblings = {_name(k): k for k in fields() if k.rpartition(".")[0] == section}
    lacking = {n: k for n, k in siblings.items() if _is_absent(k, present)}
    # A short file lacks nearly all siblings: `steps` outside any section is not a misspelt `stream`.
    near = (
        [lacking[n] for n in difflib.get_close_matches(name, lacking, n=1, cutoff=0.75)]
        or [k for k in fields() if _name(k) == name]
        or [lacking[n] for n in difflib.get_close_matches(name, lacking, n=1, cutoff=0.5)]
        or [siblings[n] for n in difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)]
        or [k for k in difflib.get_close_matches(key, fields(), n=1) if not key.startswith(f"{k}.")]
    )
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"{section or 'a configuration'} has {', '.join(siblings)}"


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _is_absent(key: str, present: Container[str]) -> bool:
    return not any(k in present for k in fields() if k == key or k.startswith(f"{key}."))


def _takes(schema: dict[str, Any]) -> str:
    """A field's JSON schema in words."""
    if "enum" in schema or "const" in schema:
        return f"allowed: {', '.join(map(str, schema.get('enum', [schema.get('const')])))}"
    return f"expected {_noun(schema)}"


def _noun(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_noun(option) for option in schema["anyOf"])
    match schema["type"]:
        case "array" if "prefixItems" in schema:
            return f"a list of {len(schema['prefixItems'])}, each {_noun(schema['prefixItems'][0])}"
        case "array":
            at_least = f" of at least {schema['minItems']}" if "minItems" in schema else ""
            return f"a list{at_least}, each {_noun(schema['items'])}"
        case "integer":
            return f"an integer{_bounds(schema)}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "string":
            return "a text"
        case "boolean":
            return "true or false"
        case kind:
            return kind


def _bounds(schema: dict[str, Any]) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    bounds = [f"{word} {schema[bound]}" for bound, word in words.items() if bound in schema]
    return f" {' and '.join(bounds)}" if bounds else ""
