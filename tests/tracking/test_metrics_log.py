"""metrics.jsonl and train.log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from spml_dist.errors import RunError
from spml_dist.tracking import metrics_log


def entry(step: int, **more) -> dict:
    fields = {
        "step": step,
        "loss": 1.23456,
        "loss/annotation": 0.5,
        "loss/cross_entropy": 2.0,
        "lr": 0.0123,
        "images_per_s": 12.34,
        "memory_mb": 2048.0,
        "eta_s": 75.0,
    }
    return fields | more


def steps(path: Path) -> list[int]:
    return [json.loads(text)["step"] for text in path.read_text().splitlines()]


def test_every_line_is_on_disk_at_once(tmp_path):
    log = metrics_log.Journal(tmp_path)
    log.say("hello")
    assert (tmp_path / "train.log").read_text() == "hello\n"
    log.step(entry(1))
    logged = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert abs(logged.pop("timestamp") / 1000 - time.time()) < 600
    assert logged == entry(1)
    assert (tmp_path / "train.log").read_text() == f"hello\n{metrics_log.line(entry(1))}\n"
    log.close()


def test_a_new_journal_goes_on_where_the_last_one_stopped(tmp_path):
    for step in (1, 2):
        log = metrics_log.Journal(tmp_path)
        log.step(entry(step))
        log.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (5, [5]), (7, [5]), (10, [5, 10]), (99, [5, 10, 15])])
def test_truncation_keeps_the_lines_up_to_a_step(tmp_path, step, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(entry(s)) + "\n" for s in (5, 10, 15)))
    metrics_log.truncate(path, step)
    assert steps(path) == kept
    metrics_log.truncate(path, step)
    assert steps(path) == kept
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_torn_last_line_is_dropped_and_what_is_written_next_stands_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(entry(5)) + "\n" + json.dumps(entry(10))[:20])
    metrics_log.truncate(path, 99)
    log = metrics_log.Journal(tmp_path)
    log.step(entry(10))
    log.close()
    assert steps(path) == [5, 10]


def test_nothing_to_truncate(tmp_path):
    metrics_log.truncate(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_line_as_people_read_it():
    assert metrics_log.line(entry(40)) == (
        "step     40  loss 1.2346  ann 0.500  ce 2.000  lr 1.23e-02  12.3 img/s  2.0 GB  left 1:15"
    )


def test_a_line_says_when_nothing_is_known_of_the_rest():
    assert metrics_log.line(entry(1, eta_s=None)).endswith("left ?")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_durations(seconds, text):
    assert metrics_log.duration(seconds) == text


def test_a_stopwatch_divides_all_time_among_phases_and_steps():
    watch = metrics_log.Stopwatch(step=10)
    for phase in ("data", "forward", "data"):
        time.sleep(0.002)
        watch.phase(phase)
    phases, seconds = watch.lap(step=12)
    assert set(phases) == {"data", "forward"}
    assert phases["data"] >= 0.002 and phases["forward"] >= 0.001
    assert sum(phases.values()) <= seconds
    assert watch.lap(step=13)[0] == {}


def test_on_a_gpu_a_phase_takes_what_the_device_spent_on_it(monkeypatch):
    """The host is through at once; the device's clock says when each phase's work was done."""
    clock = iter((0.0, 20.0, 100.0, 105.0, 105.0, 200.0))
    monkeypatch.setattr(metrics_log, "_event", lambda: SimpleNamespace(at=next(clock)))
    monkeypatch.setattr(metrics_log, "_between_events", lambda before, after: after.at - before.at)
    watch = metrics_log.Stopwatch(step=0, on_gpu=True)
    for phase in ("data", "forward", "data"):
        watch.phase(phase)
    assert watch.lap(step=2) == ({"data": 12.5, "forward": 40.0}, 52.5)
    assert watch.lap(step=3)[1] == 95.0


def test_a_stopwatch_that_saw_no_step_divides_by_one():
    watch = metrics_log.Stopwatch(step=3)
    watch.phase("data")
    assert watch.lap(step=3)[0]["data"] >= 0


def test_memory_is_counted_in_mebibytes():
    assert 10 < metrics_log.memory_mb() < 1_000_000


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path: Path, name: str):
    (tmp_path / name).symlink_to("/dev/full")
    journal = metrics_log.Journal(tmp_path)
    with pytest.raises(RunError, match=rf"{name} cannot be written \(got No space left .*\); make room"):
        journal.step(entry(1))
    journal.close()
