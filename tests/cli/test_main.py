"""The frame of the command line: verbs, help, exit statuses, one line for a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spml_dist import __version__, cli

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_asleep_unless_told_otherwise(given, used):
    """Before torch is there, which reads it once."""
    code = (
        "import os, sys; from spml_dist import cli; assert 'torch' not in sys.modules;"
        "cli.main(['--version']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split()[-1] == used, done.stderr


def test_the_verbs_are_these(capsys):
    assert cli.main(["--help"]) == 0
    message = capsys.readouterr().out
    for verb in ("pack", "preview", "verify", "config", "train", "evaluate", "refine"):
        assert f"\n    {verb} " in message
        assert f"spml-dist {verb} " in message.partition("the whole path")[2]


@pytest.mark.parametrize(
    "verb",
    ["pack", "preview", "verify", "config", "train", "evaluate", "report", "track", "classify", "refine"],
)
def test_every_verb_has_help_with_no_heavy_import(verb: str):
    code = (
        f"import sys; from spml_dist import cli; status = cli.main(['{verb}', '--help']);"
        "heavy = {'torch', 'ray', 'mlflow', 'deepspeed', 'faiss', 'cv2'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert f"usage: spml-dist {verb}" in done.stdout


def test_the_module_runs_as_the_command():
    done = python("-m", "spml_dist", "--version")
    assert (done.returncode, done.stdout) == (0, f"spml-dist {__version__}\n")


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("eval", "evaluate"), ("packs", "pack")])
def test_a_misspelt_verb_suggests_the_nearest(typed: str, meant: str, capsys):
    assert cli.main([typed, "x"]) == 2
    assert capsys.readouterr().err == f"spml-dist: error: {typed} is not a verb; did you mean {meant}?\n"


def test_a_verb_like_none_lists_all(capsys):
    assert cli.main(["xyz"]) == 2
    assert (
        "choose from pack, preview, verify, config, cam, train, label, classify, refine, evaluate, predict"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "arguments", [[], ["config"], ["config", QUICKSTART, "--bogus"], ["config", QUICKSTART, "--json"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys):
    assert cli.main(arguments) == 2
    assert "usage: spml-dist" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["label", "classify", "refine", "evaluate", "train"])
def test_changes_are_not_called_required(verb: str, capsys):
    assert cli.main([verb]) == 2
    assert "key=value" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--debug", "config", "no.yaml"], ["config", "no.yaml", "--debug"]])
def test_a_traceback_is_shown_only_with_debug(arguments: list[str], capsys):
    assert cli.main(["config", "no.yaml"]) == 2
    quiet = capsys.readouterr().err
    assert quiet.startswith("spml-dist: error: no.yaml does not exist") and quiet.count("\n") == 1
    assert cli.main(arguments) == 2
    loud = capsys.readouterr().err
    assert loud.startswith("Traceback") and loud.endswith(quiet)


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spml_dist.cli.config.explain", interrupted)
    assert cli.main(["config", QUICKSTART]) == 130
    assert capsys.readouterr().err == "spml-dist: interrupted\n"


def test_a_reader_that_has_gone_is_not_a_mistake():
    command = [sys.executable, "-m", "spml_dist", "config", QUICKSTART]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 141
