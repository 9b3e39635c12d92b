"""How hard inputs are tried: `quick` in every run of the suite, `long` by `make fuzz`."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

ROOM = 2 << 30
"""bytes that an input may cost"""

# An hour is for finding; the blob that a failure prints is made smaller in the quick profile.
_FINDING = (Phase.explicit, Phase.reuse, Phase.generate)

for _name, _examples, _phases in (("quick", 25, tuple(Phase)), ("long", 20_000, _FINDING)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        phases=_phases,
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
