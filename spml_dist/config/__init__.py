"""An experiment as one YAML file, checked against typed models before anything starts.

`load` gives a frozen `Config`; every mistake in the file or an override is a `ConfigError` of one line that
names the dotted key, where it was written, what is allowed, and the nearest valid name. docs/configuration.md
tells the whole.
"""

from __future__ import annotations

from spml_dist.config.flatten import differences, dump, flatten
from spml_dist.config.load import expanded, explain, load, read_section
from spml_dist.config.models import Config
from spml_dist.config.reference import reference

__all__ = [
    "Config",
    "differences",
    "dump",
    "expanded",
    "explain",
    "flatten",
    "load",
    "read_section",
    "reference",
]
