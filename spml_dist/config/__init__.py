"""An experiment as one whole YAML file, checked against typed models before anything starts.

`load` gives a frozen `Config`; every mistake in the file or an override is a `ConfigError` of one line that
names the dotted key, where it was written, what is allowed, and the nearest valid name.
"""

from __future__ import annotations

from spml_dist.config.flatten import differences, dump, flatten
from spml_dist.config.load import load, origins
from spml_dist.config.models import Config

__all__ = ["Config", "differences", "dump", "flatten", "load", "origins"]
