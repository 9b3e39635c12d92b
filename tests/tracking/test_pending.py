"""What of a run folder has not arrived: nothing is lost, nothing comes twice, whatever fails on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.tracking import pending

RESULT = {
    "split": "val",
    "oracle": False,
    "step": 40,
    "miou": 0.5,
    "readouts": {"classifier": {"miou": 0.5, "pixel_accuracy": 0.75, "iou": {"sea & sand": 0.25}}},
}


def line(step: int) -> str:
    entry = {"step": step, "timestamp": 1000 * step, "loss": 1 / step, "lr": 0.1, "eta_s": None, "host": "a"}
    return json.dumps(entry) + "\n"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(map(line, range(1, 11))))
    return tmp_path


def batches(folder: Path, mark: int, most: int = 100):
    return pending.batches(folder / "metrics.jsonl", "train/", mark, most)


def steps(batches) -> list[int]:
    return [step for batch in batches for name, _, _, step in batch if name == "train/loss"]


def test_what_the_log_says_of_the_bank_is_a_group_of_its_own(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "timestamp": 5, "loss": 2.0, "bank/rows": 7}\n')
    assert next(batches(tmp_path, 0)) == [("train/loss", 2.0, 5, 1), ("bank/rows", 7.0, 5, 1)]


def test_points_have_prefix_value_time_and_step_and_what_is_no_number_is_left_out(run):
    assert next(batches(run, 9)) == [("train/loss", 0.1, 10_000, 10), ("train/lr", 0.1, 10_000, 10)]


@given(mark=st.integers(-1, 12), most=st.integers(1, 30), failures=st.lists(st.integers(0, 4), max_size=6))
def test_whatever_fails_every_step_after_the_mark_arrives_once_and_in_order(
    tmp_path_factory, mark, most, failures
):
    folder = tmp_path_factory.mktemp("log")
    (folder / "metrics.jsonl").write_text("".join(map(line, range(1, 11))))
    arrived, first = [], max(1, mark + 1)
    for taken in (*failures, 100):
        for number, batch in enumerate(batches(folder, mark, most)):
            if number == taken:
                break
            arrived.append(batch)
            mark = batch[-1][-1]
    assert steps(arrived) == list(range(first, 11))


@pytest.mark.parametrize("block", [1, 150, 1000])
@pytest.mark.parametrize("mark", [-1, 0, 1, 4, 9, 10])
def test_what_is_new_is_found_from_the_end_of_a_long_log(run, monkeypatch, block, mark):
    monkeypatch.setattr(pending, "BLOCK", block)
    assert steps(batches(run, mark)) == list(range(max(1, mark + 1), 11))


def test_a_batch_is_made_of_whole_steps(run):
    assert [len(batch) for batch in batches(run, -1, 3)] == [4, 4, 4, 4, 4]


def test_a_line_that_is_being_written_comes_when_it_is_whole(run):
    path = run / "metrics.jsonl"
    path.write_text(line(1) + line(2)[:10])
    assert steps(batches(run, -1)) == [1]
    path.write_text(line(1) + line(2))
    assert steps(batches(run, 1)) == [2]


def test_a_line_torn_by_a_crash_is_passed_over(run):
    (run / "metrics.jsonl").write_text(line(1) + line(2)[:10] + "\n7\n" + line(3))
    assert steps(batches(run, -1)) == [1, 3]


def test_every_node_has_a_log_of_its_own(tmp_path):
    (tmp_path / "system").mkdir()
    for node in (1, 0):
        (tmp_path / "system" / f"node_{node}.jsonl").write_text(line(1))
    assert pending.logs(tmp_path) == {
        "metrics.jsonl": "train/",
        "system/node_0.jsonl": "system/node_0/",
        "system/node_1.jsonl": "system/node_1/",
    }


def test_a_file_is_due_until_it_has_arrived_and_again_when_it_changes(tmp_path):
    path = tmp_path / "previews" / "step_000010.png"
    path.parent.mkdir()
    path.write_bytes(b"")
    (file,) = pending.artifacts(tmp_path, {})
    assert (file.name, file.group) == ("previews/step_000010.png", "previews")
    marks = {file.name: file.mark}
    assert pending.artifacts(tmp_path, marks) == []
    os.utime(path, (1, 1))
    assert pending.artifacts(tmp_path, marks) == [pending.Artifact(file.name, "previews", 1000)]


def test_the_numbers_of_a_result_bear_its_split_its_step_and_its_time(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / "result.md").write_text("a table")
    points = {file.name: pending.numbers(tmp_path, file) for file in pending.artifacts(tmp_path, {})}
    assert points["result.md"] == []
    assert {name: value for name, value, *_ in points["result.json"]} == {
        "eval/val/miou": 0.5,
        "eval/val/classifier/miou": 0.5,
        "eval/val/classifier/pixel_accuracy": 0.75,
        "eval/val/classifier/iou/sea _ sand": 0.25,
    }
    assert {(when, step) for _, _, when, step in points["result.json"]} == {
        ((tmp_path / "result.json").stat().st_mtime_ns // 1_000_000, 40)
    }


def test_what_has_not_arrived_is_counted(tmp_path, run):
    (tmp_path / "result_val_oracle.json").write_text(json.dumps(RESULT | {"oracle": True}))
    (tmp_path / "config.yaml").write_text("name: x")
    assert pending.count(tmp_path, {}) == (20 + 4, 2)
    assert pending.count(tmp_path, {"metrics.jsonl": 7}) == (6 + 4, 2)


def test_classes_of_every_script_have_a_number_of_their_own(tmp_path):
    iou = {"背景": 0.1, "猫": 0.2, "狗": 0.3, "a/b": 0.4, "a:b": 0.5, "Cat": 0.6, "cat": 0.7, "..": 0.8}
    readouts = {"classifier": {"miou": 0.5, "iou": iou}}
    (tmp_path / "result.json").write_text(json.dumps(RESULT | {"readouts": readouts}))
    (file,) = pending.artifacts(tmp_path, {})
    points = {name: value for name, value, *_ in pending.numbers(tmp_path, file)}
    places = ["背景", "猫", "狗", "a_b", "a_b_2", "Cat", "cat_2", "_.."]
    assert [points[f"eval/val/classifier/iou/{place}"] for place in places] == list(iou.values())


@given(st.lists(st.text(min_size=1), unique=True, max_size=12))
def test_different_names_stay_different(names):
    places = pending.distinct(names)
    assert list(places) == names
    assert len({place.casefold() for place in places.values()}) == len(names)
