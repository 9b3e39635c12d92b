"""How hard inputs are tried: `quick` in every run of the suite, `long` by `make fuzz`."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOM = 2 << 30
"""bytes that an input may cost"""

for _name, _examples in (("quick", 25), ("long", 20_000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=30_000,  # milliseconds; a hang, not a slow machine
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

fuzz = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
"""decorates every test of this folder; other tests keep their own settings"""


@pytest.fixture(autouse=True)
def bounded():
    """What an input makes a reader allocate beyond ROOM fails as a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
