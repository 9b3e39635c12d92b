"""`spml-dist train` on Ray, in which ranks die where and when a plan says.

    SPML_DRILL=PLAN python -m tests.drills.faulty_train CONFIG ...

The plan is a JSON list of objects with the keys of `Kill`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

PLAN = "SPML_DRILL"


@dataclass(frozen=True)
class Kill:
    """A rank that dies, once."""

    place: str
    """of `faults.PLACES`"""
    step: int
    """from 0"""
    witness: str
    """file that is there once it has happened, from the moment at which it did"""

    def happened(self) -> bool:
        return Path(self.witness).exists()

    def act(self) -> None:
        from tests.drills import faults

        Path(self.witness).touch()
        faults.die()


def plan(folder: Path, kills: Sequence[tuple[str, int]]) -> list[Kill]:
    """kills: places and steps; folder: for their witnesses, made here."""
    folder.mkdir()
    return [Kill(place, step, str(folder / f"{number:02d}")) for number, (place, step) in enumerate(kills)]


def written(kills: Sequence[Kill]) -> str:
    """As SPML_DRILL has it."""
    return json.dumps([asdict(kill) for kill in kills])


def work(kills: Sequence[Kill], payload: dict[str, Any]) -> None:
    """A worker. Of the kills that are still to happen, the first is armed."""
    from spml_dist import comm
    from spml_dist.training.worker import work as train
    from tests.drills import faults

    kill = next((each for each in kills if not each.happened()), None)
    if kill and comm.rank() == faults.PLACES[kill.place]:
        faults.arm(kill.place, kill.step, kill.act)
    train(payload)


def main() -> int:
    from spml_dist import cli
    from spml_dist.training import worker
    from tests.drills import faulty_train  # by this name workers find it; here it is __main__

    kills = [faulty_train.Kill(**each) for each in json.loads(os.environ[PLAN])]
    worker.work = partial(faulty_train.work, kills)
    return cli.main(["train", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
