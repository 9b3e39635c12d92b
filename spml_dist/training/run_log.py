"""What a training says of itself while it runs: RUN/metrics.jsonl, RUN/train.log, and MLflow."""

from __future__ import annotations

from typing import Any

from spml_dist import comm
from spml_dist.config import Config, flatten
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import metrics_log
from spml_dist.tracking.background import BackgroundSync


class RunLog:
    """Rank 0 writes; on every other rank each method does nothing, so that nobody has to ask."""

    def __init__(self, run: RunFolder, step: int):
        """Go on after `step` optimiser steps: entries of later ones go, for these will be made again."""
        self._run = run
        self._journal: metrics_log.Journal | None = None
        self._sync: BackgroundSync | None = None
        if comm.rank() == 0:
            metrics_log.truncate(run.metrics, step)
            self._journal = metrics_log.Journal(run.path)

    def track(self, run: RunFolder, config: Config) -> None:
        """Let MLflow's run follow: the one that RUN/mlflow.json names, or a new one."""
        if self._journal:
            uri, experiment = config.tracking.uri, config.tracking.experiment
            self._sync = BackgroundSync(
                run.path, uri, experiment, config.name, flatten(config), self._journal.say
            )

    def line(self, text: str) -> None:
        """A line for people."""
        if self._journal:
            self._journal.say(text)

    def hang(self, text: str) -> None:
        """A line from whichever rank is left to write it."""
        with self._run.train_log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def step(self, entry: dict[str, Any]) -> None:
        """The numbers of a logged step."""
        if self._journal:
            self._journal.step(entry)

    def close(self, status: str) -> None:
        """status: FINISHED, FAILED or KILLED, as MLflow calls them."""
        if self._sync and (missing := self._sync.finish(status)):
            self.line(str(missing))
        if self._journal:
            self._journal.close()
