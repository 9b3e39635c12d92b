"""Keys of earlier releases: files and commands that were written for them mean the same today.

A key that is renamed or removed gets a line here, and keeps it. A key that is added needs none, because its
default is what its absence meant before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spml_dist.config.document import Setting
from spml_dist.config.flatten import text_of
from spml_dist.errors import ConfigError

RENAMED: dict[str, str] = {
    "bank.shards": "bank.partitions",
}
"""dotted key of then → of today"""

REMOVED: dict[str, tuple[Any, str]] = {}
"""dotted key of then → (the value that meant what is always done today, what to do about any other)"""


def is_old(key: str) -> bool:
    return key in RENAMED or key in REMOVED


def notice(key: str) -> str:
    """One line on a key of then."""
    return f"{key} is {RENAMED[key]} today" if key in RENAMED else f"{key} is no longer needed"


def migrated(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The same settings under today's keys, in their order; keys that are no longer needed are left out.

    Raises ConfigError where a removed key has a value that cannot be had any more, and where one setting is
    given under both its names.
    """
    current: dict[str, Setting] = {}
    for key, setting in settings.items():
        if key in REMOVED:
            same, remedy = REMOVED[key]
            if setting.value != same:
                what = f"{key} {setting.place} is no longer a configuration key"
                raise ConfigError(what, text_of(setting.value), remedy)
        elif key in RENAMED and RENAMED[key] in settings:
            other = settings[RENAMED[key]]
            what = f"{key} {setting.place} is {RENAMED[key]} today, which is given {other.place} too"
            raise ConfigError(what, None, f"remove {key}")
        else:
            current[RENAMED.get(key, key)] = setting
    return current
