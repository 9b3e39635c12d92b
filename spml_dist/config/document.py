"""A YAML file as flat settings: dotted key → value and the line it stands on.

Plain scalars follow YAML 1.2: `1e-3` is a number; `yes`, `on` and `1:30` are text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spml_dist.errors import ConfigError

DEFAULT = "default"
OVERRIDE = "override"


@dataclass(frozen=True)
class Setting:
    """A value and where it was written: `FILE:LINE`, or `override`."""

    value: Any
    origin: str
    text: str | None = None
    """how a number was written, where the value is one: as a text it is that"""

    @property
    def place(self) -> str:
        return "on the command line" if self.origin == OVERRIDE else f"at {self.origin}"


UNREADABLE = (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""what PyYAML raises for a text that is no YAML, and for values that are not what their tag says"""


class _Loader(yaml.SafeLoader):
    # Emptied: PyYAML's own are those of YAML 1.1, by which `1e-3` is text, `on` true and `1:30` ninety.
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def compose_node(self, parent, index):
        """Refuses what grows without end: a list inside itself, a list of lists of lists by their names."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            if isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
                problem = f"*{event.anchor} stands for a list or a section: write it out"
                raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)


def parse(text: str) -> Any:
    """The value that `text` stands for. Raises one of UNREADABLE."""
    return yaml.load(text, _Loader)


def number_text(value: Any, written: str) -> str | None:
    """How a number was written; None for any other value."""
    return written.strip() if isinstance(value, int | float) and not isinstance(value, bool) else None


def settings(path: Path) -> dict[str, Setting]:
    """The file's leaves in their order. Raises ConfigError for a file that is absent, is not YAML, is not a
    mapping, or has a key twice."""
    text, loader = _text(path), None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}", None, "a configuration is a mapping of sections")
        return dict(_leaves(loader, node, "", path))
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{place} is not YAML: {reason}", None, "correct that line") from error
    finally:
        if loader:
            loader.dispose()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", None, _nearest_file(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text", None, "give a YAML file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", None, "give a YAML file") from error


def _nearest_file(path: Path) -> str:
    present = sorted(file.name for file in path.parent.glob("*.yaml"))
    if not present:
        return f"there is no YAML file in {path.parent}"
    near = difflib.get_close_matches(path.name, present, n=1, cutoff=0.5)
    if near:
        return f"did you mean {path.parent / near[0]}?"
    return f"{path.parent} has {', '.join(present)}"


def _leaves(
    loader: _Loader, node: yaml.MappingNode, prefix: str, path: Path
) -> Iterator[tuple[str, Setting]]:
    lines: dict[str, int] = {}  # PyYAML would let the last of equal keys win without a word
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        key = prefix + name
        if "." in name:
            raise ConfigError(
                f"{key} at {path}:{line} has a dot", None, "write it as a section with a key under it"
            )
        if name in lines:
            raise ConfigError(
                f"{key} at {path}:{line} is given twice", None, f"it is also at line {lines[name]}"
            )
        lines[name] = line
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _leaves(loader, value_node, f"{key}.", path)
        else:
            value = loader.construct_object(value_node, deep=True)
            text = number_text(value, value_node.value) if isinstance(value_node, yaml.ScalarNode) else None
            yield key, Setting(value, f"{path}:{line}", text)
