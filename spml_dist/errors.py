"""The errors a user can cause. Each says what was wrong, the value seen, and what to do about it."""

from __future__ import annotations

_READ = 500
"""letters of a value that a line shows"""


class SpmlError(Exception):
    """A user's mistake or an unusable input: one line, exit status 2.

    what: the file or dotted key and what is wrong with it; value: what was seen, or None;
    remedy: what to do. Only strings are kept, so that the error survives pickling between processes.
    """

    status = 2

    def __init__(self, what: str, value: object = None, remedy: str = ""):
        self.what = what
        self.value = None if value is None else str(value)
        self.remedy = remedy
        super().__init__(what, self.value, remedy)

    def __str__(self) -> str:
        value = "" if self.value is None else f" (got {_shortened(self.value)})"
        todo = f"; {self.remedy}" if self.remedy else ""
        line = " ".join(f"{self.what}{value}{todo}".splitlines())
        # Half a character, which JSON can hold, would end a file or a terminal's line in another error.
        return line.encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(value: str) -> str:
    """The value's beginning and end, where it is longer than anybody reads."""
    return value if len(value) <= _READ else f"{value[: _READ - 40]} ... {value[-35:]}"


class ConfigError(SpmlError):
    """A configuration key or value that cannot be used; `what` starts with the dotted key."""


class DataError(SpmlError):
    """An image, annotation, shard or manifest that cannot be used; `what` starts with the file."""


class RunError(SpmlError):
    """A run folder, checkpoint or cluster that cannot be used; `what` starts with the path or address."""


class Stopped(SpmlError):
    """Not an error of anybody's: a training saved and stopped because it was asked to; it can go on."""

    status = 75
