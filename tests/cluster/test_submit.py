"""`spml-dist submit`: to a stand-in for a head's dashboard, and for real to a Ray head on this machine."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spml_dist import cli
from tests.cluster.conftest import Head
from tests.cluster.dashboard import Dashboard, running
from tests.servers import dead_url

ROOT = Path(__file__).parents[2]
QUICKSTART = "configs/quickstart.yaml"
UPLOADED = ("output=/r", "data.train=/t", "data.val=/v", "tracking.uri=http://mlflow:5000")


@dataclass
class Done:
    status: int
    out: str
    err: str


Submit = Callable[..., Done]


@pytest.fixture
def submit(monkeypatch, tmp_path: Path, capsys) -> Submit:
    """`spml-dist submit` from the repository with these words and, besides, these environment variables."""
    for name in ("AUTH_TOKEN", "AUTH_TOKEN_PATH", "AUTH_MODE", "ADDRESS", "JOB_STOP_WAIT_TIME_S"):
        monkeypatch.delenv(f"RAY_{name}", raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # the verb sets it
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)

    def run(*words: object, **variables: object) -> Done:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, str(value))
            capsys.readouterr()
            status = cli.main(["submit", *map(str, words)])
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with running(Dashboard()) as one:
        yield one


def refusal(done: Done) -> str:
    """The one line of a mistake."""
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done
    return done.err


class TestMistakes:
    """Each is one line and exit status 2, before anything reaches the cluster."""

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([QUICKSTART], "no --address given"),
            (["--address", "ray://h:10001", QUICKSTART], "give http://HOST:8265"),
            (["--address", "h", "configs/quikstart.yaml"], "did you mean configs/quickstart.yaml?"),
            (["--address", "h", QUICKSTART, "stream.bach=4"], "did you mean stream.batch?"),
            (["--address", "h", "--", "train", QUICKSTART, "stream.batch=0"], "stream.batch"),
            (["--address", "h", "submit", QUICKSTART], "submit submits other verbs"),
            (["--address", "h", "--working-dir", "nowhere", QUICKSTART], "--working-dir is not a folder"),
            (["--address", "h", "--working-dir", ".", QUICKSTART], "output is relative (got runs)"),
            (
                ["--address", "h", "--working-dir", ".", QUICKSTART, *UPLOADED[:3]],
                "tracking.uri is relative (got sqlite:///runs/mlflow.db)",
            ),
            (
                ["--address", "h", "--working-dir", "docs", QUICKSTART, *UPLOADED],
                "is not inside --working-dir",
            ),
            (
                ["--address", "h", "--env", "NO_SUCH_NAME", QUICKSTART],
                "--env names a variable that is not set",
            ),
            (["--address", "h", "--env", "AWS_SECRET_ACCESS_KEY", QUICKSTART], "--env names a key"),
            (["--address", "h", "--env", "MLFLOW_TRACKING_TOKEN", QUICKSTART], "set it where `ray start`"),
        ],
    )
    def test_a_wrong_call(self, submit: Submit, words: list[str], message: str):
        assert message in refusal(submit(*words))

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "the following arguments are required"),
            (["--address"], "expected one argument"),
            (["--adress", "x", QUICKSTART], "unrecognized arguments: --adress"),
            (["--address", "h", "--", "pack", "sampel", "--out", "x"], "invalid choice: 'sampel'"),
        ],
    )
    def test_words_that_are_none(self, submit: Submit, words: list[str], message: str):
        done = submit(*words)
        assert done.status == 2 and message in done.err

    def test_a_head_that_is_not_there(self, submit: Submit):
        address = dead_url()
        assert f"{address} cannot be reached" in refusal(submit("--address", address, QUICKSTART))

    def test_a_server_of_another_kind(self, submit: Submit, dashboard: Dashboard):
        message = refusal(submit("--address", f"{dashboard.address}/elsewhere", QUICKSTART))
        assert "does not answer as a Ray dashboard (got 404)" in message

    def test_a_time_that_is_none(self, submit: Submit):
        done = submit("--address", "h", QUICKSTART, RAY_JOB_STOP_WAIT_TIME_S="soon")
        assert "RAY_JOB_STOP_WAIT_TIME_S (got soon)" in refusal(done)


class TestToken:
    @pytest.fixture
    def dashboard(self) -> Iterator[Dashboard]:
        with running(Dashboard(token="1" * 64)) as one:
            yield one

    def test_none(self, submit: Submit, dashboard: Dashboard):
        message = refusal(submit("--address", dashboard.address, QUICKSTART))
        assert "wants a token and none was found" in message and "RAY_AUTH_TOKEN_PATH" in message

    def test_a_wrong_one(self, submit: Submit, dashboard: Dashboard):
        message = refusal(submit("--address", dashboard.address, QUICKSTART, RAY_AUTH_TOKEN="0" * 64))
        assert "refuses the token in RAY_AUTH_TOKEN" in message and "0" * 64 not in message

    def test_a_file_that_is_not_there(self, submit: Submit, tmp_path: Path):
        done = submit("--address", "h", QUICKSTART, RAY_AUTH_TOKEN_PATH=tmp_path / "none")
        assert f"RAY_AUTH_TOKEN_PATH (got {tmp_path / 'none'})" in refusal(done)

    @pytest.mark.parametrize("place", ["variable", "file", "home"])
    def test_the_right_one_goes_to_the_head_and_is_shown_nowhere(
        self, submit: Submit, dashboard: Dashboard, place: str, tmp_path: Path
    ):
        file = tmp_path / (".ray/auth_token" if place == "home" else "token")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{dashboard.token}\n")
        given = {"variable": {"RAY_AUTH_TOKEN": dashboard.token}, "file": {"RAY_AUTH_TOKEN_PATH": file}}
        done = submit("--address", dashboard.address, QUICKSTART, **given.get(place, {}))
        assert done.status == 0 and len(dashboard.jobs) == 1, done
        assert dashboard.token not in f"{done} {dashboard.jobs}"


class TestJob:
    """What Ray is asked for."""

    def test_a_training_in_this_folder(self, submit: Submit, dashboard: Dashboard):
        done = submit(QUICKSTART, "--address", dashboard.address, "stream.scale=[0.5, 1.0]")
        (job,) = dashboard.jobs
        train = f"exec {sys.executable} -m spml_dist train {QUICKSTART} 'stream.scale=[0.5, 1.0]'"
        assert job["entrypoint"] == f"cd {ROOT} && {train}"
        assert job["runtime_env"]["env_vars"]["PYTHONPATH"] == str(ROOT)
        assert job["submission_id"].startswith("spml-quickstart-")
        assert done.out == f"submitted {job['submission_id']}\nstep 1\n" and not dashboard.uploaded

    def test_any_verb(self, submit: Submit, dashboard: Dashboard):
        words = ("pack", "sample", "--out", "data/my sample", "--workers", "8")
        assert submit("--address", dashboard.address, "--", *words).status == 0
        assert dashboard.jobs[0]["entrypoint"].endswith("pack sample --out 'data/my sample' --workers 8")

    def test_an_uploaded_folder(self, submit: Submit, dashboard: Dashboard, tmp_path: Path, monkeypatch):
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "mine.yaml").write_text((ROOT / QUICKSTART).read_text())
        words = (tmp_path / "configs" / "mine.yaml", *UPLOADED)
        where = ("--working-dir", tmp_path, "--python", "python")
        assert submit("--address", dashboard.address, *where, *words).status == 0
        (job,) = dashboard.jobs
        assert job["entrypoint"].startswith("exec python -m spml_dist train configs/mine.yaml output=/r ")
        assert job["runtime_env"]["working_dir"].startswith("gcs://") and len(dashboard.uploaded) == 1
        assert "PYTHONPATH" not in job["runtime_env"]["env_vars"]

    def test_it_has_time_to_save_when_it_is_stopped(self, submit: Submit, dashboard: Dashboard):
        submit("--address", dashboard.address, QUICKSTART)
        submit("--address", dashboard.address, QUICKSTART, RAY_JOB_STOP_WAIT_TIME_S=45)
        seconds = [job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] for job in dashboard.jobs]
        assert seconds == ["600", "45"]

    def test_a_variable_is_handed_on(self, submit: Submit, dashboard: Dashboard):
        submit("--address", dashboard.address, "--env", "NCCL_DEBUG", QUICKSTART, NCCL_DEBUG="INFO")
        (job,) = dashboard.jobs
        assert job["runtime_env"]["env_vars"]["NCCL_DEBUG"] == "INFO" and "INFO" not in job["entrypoint"]


class TestFollowing:
    @pytest.mark.parametrize(
        ("outcome", "status"),
        [
            ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
            ({"status": "FAILED", "driver_exit_code": 7}, 7),
            ({"status": "FAILED", "driver_exit_code": 75}, 75),
            ({"status": "FAILED", "driver_exit_code": -9}, 137),
            ({"status": "STOPPED"}, 130),
        ],
    )
    def test_the_job_s_own_status_comes_back(self, submit, dashboard: Dashboard, outcome: dict, status: int):
        dashboard.outcome = outcome
        assert submit("--address", dashboard.address, QUICKSTART).status == status

    def test_a_job_that_never_ran(self, submit: Submit, dashboard: Dashboard):
        dashboard.outcome = {"status": "FAILED", "message": "no such interpreter"}
        done = submit("--address", dashboard.address, QUICKSTART)
        assert done.status == 2 and "could not be run (got no such interpreter)" in done.err

    def test_a_log_that_breaks_off_says_how_to_go_on(self, submit: Submit, dashboard: Dashboard):
        dashboard.outcome = {"status": "RUNNING"}
        done = submit("--address", dashboard.address, QUICKSTART)
        name = dashboard.jobs[0]["submission_id"]
        assert done.status == 2 and "the log broke off" in done.err
        assert f"ray job logs --follow --address {dashboard.address} {name}" in done.err

    def test_ctrl_c_leaves_the_log_and_says_how_to_stop_the_job(self, submit: Submit, dashboard: Dashboard):
        dashboard.endless = True
        left = threading.Event()

        def interrupt() -> None:
            assert dashboard.tailed.wait(60)
            # As a terminal's is heard. Python loses one that comes just before it waits for a socket, and a
            # person presses again.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            while not left.wait(10):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which parallel tests ignore
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            done = submit("--address", dashboard.address, QUICKSTART)
        finally:
            left.set()
            signal.signal(signal.SIGINT, before)
        name = dashboard.jobs[0]["submission_id"]
        assert done.status == 130, done
        assert f"goes on; to stop it: ray job stop --address {dashboard.address} {name}" in done.err

    def test_without_waiting(self, submit: Submit, dashboard: Dashboard):
        done = submit("--address", dashboard.address, "--no-wait", QUICKSTART)
        assert done.status == 0 and "to follow it: ray job logs" in done.out and "step 1" not in done.out


@pytest.mark.timeout(1000)
class TestOnRay:
    def test_a_training_runs_to_its_end_and_no_key_is_left_in_any_log(
        self, submit: Submit, head: Head, experiment, tmp_path: Path
    ):
        secrets = (head.token_file.read_text(), head.tracking_token)
        config, *words = experiment(tmp_path, "far", "schedule.steps=3", "tracking.previews=0")
        given = {"RAY_AUTH_TOKEN_PATH": head.token_file}
        done = submit("--address", head.address, config, *words, **given)
        assert done.status == 0, done
        assert "step      3  loss" in done.out and "trained; evaluate with" in done.out
        assert (tmp_path / "far" / "export" / "model.safetensors").exists()
        files = [file for place in (tmp_path, head.token_file.parent) for file in place.rglob("*")]
        leaks = {
            str(file)
            for file in files
            if file.is_file()
            and file != head.token_file
            and any(secret.encode() in file.read_bytes() for secret in secrets)
        }
        assert not leaks

    def test_an_uploaded_folder_reaches_driver_and_workers_without_what_is_large(
        self, submit: Submit, head: Head, tmp_path: Path
    ):
        project = tmp_path / "project"
        for file in ("module.py", "data/large", "runs/large", ".venv/large", "configs/data/small"):
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            (project / file).write_text("WORD = 'imported'\n")
        (project / "configs" / "mine.yaml").write_text((ROOT / QUICKSTART).read_text())
        (project / "driver.py").write_text(
            "import ray\n"
            "@ray.remote\n"
            "def work():\n"
            "    import module\n"
            "    return module.WORD\n"
            "ray.init()\n"
            "print('a worker has', ray.get(work.remote()))\n"
        )
        interpreter = tmp_path / "interpreter"
        script = f"echo got $4; echo files $(find . -type f | sort); {sys.executable} driver.py; exit 7"
        interpreter.write_text(f"#!/bin/bash\n{script}\n")
        interpreter.chmod(0o755)
        done = submit(
            *("--address", head.address, "--working-dir", project, "--python", interpreter),
            *(project / "configs" / "mine.yaml", *UPLOADED),
            RAY_AUTH_TOKEN=head.token_file.read_text(),
        )
        assert done.status == 7, done
        assert "got configs/mine.yaml" in done.out
        assert "files ./configs/data/small ./configs/mine.yaml ./driver.py ./module.py\n" in done.out
        assert "a worker has imported" in done.out

    def test_a_mistake_that_only_the_job_can_see_comes_back_with_its_line(
        self, submit: Submit, head: Head, tmp_path: Path
    ):
        lost = (f"output={tmp_path}", f"data.train={tmp_path}/none")
        token = {"RAY_AUTH_TOKEN_PATH": head.token_file}
        done = submit("--address", head.address, QUICKSTART, *lost, **token)
        assert done.status == 2, done
        assert f"spml-dist: error: {tmp_path}/none" in done.out
