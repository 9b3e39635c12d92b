"""RUN/config.yaml: every value with where it came from, as long as the run is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spml_dist.config import Config, explain, load
from spml_dist.config.cam import cam_experiment
from spml_dist.errors import RunError
from spml_dist.run_folder import RunFolder
from spml_dist.training.claim import claim, exported_step, held

SMALL = Path(__file__).parents[1] / "small.yaml"


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def claimed(run: RunFolder, *overrides: str, path: Path = SMALL) -> Config:
    config, origins = explain(path, overrides)
    claim(run, config, origins)
    return config


def lines(run: RunFolder) -> dict[str, str]:
    """Value and origin of each line, by its key without the section; of equal keys the first."""
    rows = [line for line in run.config.read_text().splitlines() if "  # " in line]
    return dict(line.strip().split(": ", 1) for line in reversed(rows))


def test_a_run_s_file_shows_origins_and_loads_to_the_same(run):
    config = claimed(run, "seed=7")
    assert load(run.config) == config
    shown = lines(run)
    assert shown["seed"].split() == ["7", "#", "override"]
    assert shown["lr"].split()[:2] == ["0.02", "#"] and f"{SMALL}:" in shown["lr"]
    assert shown["momentum"].split() == ["0.9", "#", "default"]


def test_going_on_from_the_run_s_own_file_keeps_the_origins(run):
    claimed(run, "seed=7")
    run.metrics.write_text("{}\n")
    before = run.config.read_text()
    claimed(run, path=run.config)
    assert run.config.read_text() == before
    claimed(run, "tracking.every=3", path=run.config)
    assert (
        lines(run)["every"] and "override" in run.config.read_text() and load(run.config).tracking.every == 3
    )


def test_a_configuration_without_origins_is_written_without(run):
    claim(run, load(SMALL))
    assert load(run.config) == load(SMALL) and "#" not in run.config.read_text()


def test_a_run_that_logged_a_step_is_one_configuration_s(run):
    claimed(run)
    claimed(run, "stream.batch=4")  # nothing is logged: the folder is free
    run.metrics.write_text("{}\n")
    with pytest.raises(
        RunError, match=r"belongs to another configuration \(got stream.batch \(4 there, 8 here\)"
    ):
        claimed(run)
    assert load(run.config).stream.batch == 4


def test_a_run_may_lie_elsewhere_and_so_may_its_data_if_it_is_the_same(run, tmp_path):
    claimed(run, "output=/before", "data.train=/before/train")
    run.metrics.write_text("{}\n")
    config = load(SMALL, [f"output={tmp_path}", "data.train=/now/train"])
    with pytest.raises(RunError, match=r"\(got data.train \(/before/train there, /now/train here\)\)"):
        claim(run, config)
    claim(run, config, same_data=True)
    assert load(run.config) == config


def test_what_later_stages_take_may_change(run):
    """A run of an earlier release goes on by the configuration of today, with other settings for them."""
    claimed(run)
    run.metrics.write_text("{}\n")
    claimed(run, "cam.lr=0.1", "classifier.steps=7", "labeling.steps=3")
    assert load(run.config).classifier.steps == 7


def test_a_classifier_of_tags_is_one_configuration_s(run):
    claim(run, cam_experiment(load(SMALL)))
    run.metrics.write_text("{}\n")
    with pytest.raises(
        RunError, match=r"belongs to another configuration \(got optimizer.lr \(.* 0.1 here\)"
    ):
        claim(run, cam_experiment(load(SMALL, ["cam.lr=0.1"])))


def test_a_stage_of_other_settings_is_told_by_the_keys_that_are_typed(tmp_path):
    stage = RunFolder(tmp_path / "run" / "stages" / "s1")
    claimed(stage, "classifier.steps=4", "schedule.steps=4", "schedule.warmup=0")
    stage.metrics.write_text("{}\n")
    with pytest.raises(RunError, match=r"\(got classifier.steps \(4 there, 5 here\)\); remove it$"):
        claimed(stage, "classifier.steps=5", "schedule.steps=5", "schedule.warmup=0")


def test_a_damaged_export_is_named_with_what_to_do(run):
    assert exported_step(run) is None
    run.export.mkdir(parents=True)
    for damage in ("", "{", "[]", '{"step": null}'):
        run.model_info.write_text(damage)
        with pytest.raises(RunError, match=r"model\.json cannot be read .*remove it"):
            exported_step(run)


def test_a_run_that_is_being_trained_is_nobody_else_s(run):
    with (
        held(run),
        pytest.raises(RunError, match=r"another process trains this run; .*spml-dist stop .*name="),
        held(run),
    ):
        pass
    with held(run):
        pass


def test_a_process_that_was_killed_holds_nothing(run):
    script = (
        "import os, signal, sys; from pathlib import Path; from spml_dist.run_folder import RunFolder;"
        "from spml_dist.training.claim import held; holding = held(RunFolder(Path(sys.argv[1])));"
        "holding.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(run.path)], check=False).returncode == -9
    assert run.lock.exists()
    with held(run):
        pass


def test_a_folder_that_cannot_be_made_is_named(run):
    run.path.write_text("a file")
    with pytest.raises(RunError, match="cannot be written"), held(run):
        pass
