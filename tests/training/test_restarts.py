"""What a run keeps of its failures, and what its report shows of them."""

from __future__ import annotations

import json
from pathlib import Path

from spml_dist.cluster.restarts import Failure
from spml_dist.report import write_report
from spml_dist.report.contents import read
from spml_dist.report.summary import headline, summary
from spml_dist.run_folder import RunFolder
from spml_dist.training import restarts

FAILURE = Failure(1, 40, "rank 1: ActorDiedError: gone <SIGKILL>", "Traceback ...")


def test_the_last_whole_entry_of_the_log_is_how_far_it_came(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert restarts.reached(run) == 0
    run.metrics.write_text('{"step": 10}\n{"step": 20}\n{"step": 3')
    assert restarts.reached(run) == 20


def test_a_failure_is_a_line_of_the_log_and_an_object_of_its_own(tmp_path: Path):
    run = RunFolder(tmp_path)
    restarts.note(run, FAILURE)
    (entry,) = map(json.loads, run.restarts.read_text().splitlines())
    assert entry["timestamp"] > 0
    assert (entry["step"], entry["reason"], entry["traceback"]) == (40, FAILURE.reason, "Traceback ...")
    assert run.train_log.read_text() == f"failure 1, after step 40: {FAILURE.reason}\n"


def test_a_folder_that_cannot_be_written_keeps_nobody_from_starting_again(tmp_path: Path):
    (tmp_path / "run").write_text("a file")
    restarts.note(RunFolder(tmp_path / "run"), FAILURE)


def test_the_report_says_how_often_and_why(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert "failures of workers" not in headline(read(tmp_path))
    for _ in range(2):
        restarts.note(run, FAILURE)
    contents = read(tmp_path)
    assert headline(contents)["failures of workers"] == "2"
    assert [each["reason"] for each in summary(contents)["failures"]] == [FAILURE.reason] * 2
    page = write_report(tmp_path).read_text()
    assert page.count("rank 1: ActorDiedError: gone &lt;SIGKILL&gt;") == 2
