"""The names in a run folder: what is on disk bears them, so that none may ever change."""

from __future__ import annotations

from pathlib import Path

from spml_dist.run_folder import RunFolder, hang, preview_step, rank_log

RUN = RunFolder(Path("runs/name"))


def test_the_names_are_those_on_disk():
    named = {name: getattr(RUN, name) for name in dir(RunFolder) if isinstance(getattr(RUN, name), Path)}
    assert {name: str(path.relative_to(RUN.path)) for name, path in named.items() if name != "path"} == {
        "checkpoints": "checkpoints",
        "config": "config.yaml",
        "export": "export",
        "grow": "grow",
        "labels": "labels.json",
        "latest_attempt": "logs/latest",
        "lock": "lock",
        "metrics": "metrics.jsonl",
        "mlflow": "mlflow.json",
        "model_info": "export/model.json",
        "ray": "ray",
        "refinement": "refinement.json",
        "report": "report.html",
        "restarts": "restarts.jsonl",
        "stage_inputs": "stage.json",
        "stop": "stop",
        "train_log": "train.log",
    }


def test_what_a_rank_or_an_export_leaves_is_named_after_it():
    attempt = RUN.attempt(2)
    found = [rank_log(attempt, 3), hang(attempt, 3), RUN.exported("onnx")]
    assert [str(path.relative_to(RUN.path)) for path in found] == [
        "logs/attempt_0002/rank_00003.log",
        "logs/attempt_0002/hang_00003.json",
        "export_onnx",
    ]


def test_an_evaluation_is_named_after_its_split_and_its_neighbours():
    found = [RUN.result("val"), RUN.result("val", True), RUN.result("test"), RUN.pictures("test", True)]
    found += [RUN.confusion("val")]
    assert [str(path.relative_to(RUN.path)) for path in found] == [
        "result.json",
        "result_val_oracle.json",
        "result_test.json",
        "pictures/test_oracle.png",
        "pictures/confusion_val.png",
    ]


def test_previews_come_in_the_order_of_the_training(tmp_path):
    run = RunFolder(tmp_path)
    steps = [1_000_000, 20, 999_999]
    for step in steps:
        run.preview(step).parent.mkdir(exist_ok=True)
        run.preview(step).touch()
    assert [preview_step(path) for path in run.previews()] == sorted(steps)


def test_a_stage_lies_in_its_run_and_is_a_run_folder_itself():
    stage = RunFolder(RUN.stage("s1"))
    assert str(stage.path.relative_to(RUN.path)) == "stages/s1"
    assert stage.parent == RUN.path and RUN.parent is None


def test_a_folder_with_nothing_in_it_has_no_previews_results_or_machines(tmp_path):
    run = RunFolder(tmp_path)
    assert (run.previews(), list(run.results()), run.systems()) == ([], [], [])


def test_a_machine_has_a_file_of_its_own(tmp_path):
    run = RunFolder(tmp_path)
    run.system(0).parent.mkdir()
    run.system(0).touch()
    assert run.systems() == [tmp_path / "system" / "node_0.jsonl"]
