"""A training as a user starts it, disturbed while it runs; and what a drill came to, for the table."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.drills.same_run import logged

TABLE = Path(os.environ.get("SPML_DRILLS", "runs/drills.json"))
"""where `make drills` writes the rows of docs/failures.md"""


@dataclass
class Training:
    process: subprocess.Popen[str]
    folder: Path
    """of its run"""

    def wait_for(self, reached: Callable[[], bool], seconds: float = 900) -> None:
        """Until something is so; it fails if the training ends before."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: bool(logged(self.folder)) and logged(self.folder)[-1]["step"] >= step)

    def end(self, seconds: float = 1500) -> tuple[int, str]:
        """Exit status, and what it says of errors."""
        error = self.process.communicate(timeout=seconds)[1]
        return self.process.returncode, error


@contextmanager
def training(
    folder: Path, words: list[str], environment: Mapping[str, str] | None = None, module: str = "spml_dist"
) -> Iterator[Training]:
    """folder: of the run; words: what follows `spml-dist train`; environment: on top of this process's."""
    verb = ["train"] if module == "spml_dist" else []
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-m", module, *verb, *words],
        env=kept | dict(environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Training(process, folder)
        finally:
            process.kill()


def finish(folder: Path, words: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Train to the end, which has to be a good one."""
    with training(folder, words, environment) as run:
        status, error = run.end()
    assert status == 0, error


def resumed_from(folder: Path) -> list[int]:
    """Step of each start after the first, 0 for one that found no checkpoint."""
    text = (folder / "train.log").read_text()
    starts = re.findall(r"^(?:resuming from step_(\d+)|the backbone starts from)", text, re.MULTILINE)
    return [int(step or 0) for step in starts][1:]


def made_again(step: int, start: int) -> str:
    """What was lost. step: the last one before the failure; start: where it went on."""
    return f"{step - start} steps, made again"


def record(drill: str, done: str, lost: str, seconds: float | None) -> None:
    """A row of the table. seconds: from the failure to the first new step."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    rows[drill] = {"done": done, "lost": lost, "seconds": None if seconds is None else round(seconds, 1)}
    TABLE.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n")
