"""`cluster/submit.sh`, for real: against a Ray head with token authentication on this machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster.conftest import Head

ROOT = Path(__file__).parents[2]
QUICKSTART = "configs/quickstart.yaml"

Submit = Callable[..., subprocess.CompletedProcess]

pytestmark = pytest.mark.timeout(1000)


@pytest.fixture
def submit(clean_environment: dict[str, str]) -> Submit:
    """submit.sh from the repository with these arguments and, besides, these environment variables."""

    def run(*arguments: str | Path, cwd: Path = ROOT, **variables: str | Path) -> subprocess.CompletedProcess:
        environment = (
            clean_environment | {"PYTHON": sys.executable} | {k: str(v) for k, v in variables.items()}
        )
        command = [str(ROOT / "cluster" / "submit.sh"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
        )

    return run


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], Path]:
    """A shell script in the place of the cluster's Python: it is called with `-m spml_dist train …`."""

    def write(script: str) -> Path:
        path = tmp_path / "interpreter"
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one line of a mistake."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


class TestMistakes:
    """Each is one line and exit status 2, before anything reaches the cluster."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "no CONFIG given"),
            ([QUICKSTART], "no --address given"),
            (["--address"], "--address has no value"),
            (["--adress", "x", QUICKSTART], "--adress is not an option"),
            (["--address", "ray://h:10001", QUICKSTART], "give http://HOST:8265"),
            (["--address", "h", "configs/quikstart.yaml"], "did you mean configs/quickstart.yaml?"),
            (["--address", "h", QUICKSTART, "stream.bach=4"], "did you mean stream.batch?"),
            (["--address", "h", "--working-dir", "nowhere", QUICKSTART], "--working-dir (got nowhere)"),
            (["--address", "h", "--working-dir", ".", QUICKSTART], "output (got runs) is relative"),
            (
                [
                    "--address",
                    "h",
                    "--working-dir",
                    ".",
                    QUICKSTART,
                    "output=/r",
                    "data.train=/t",
                    "data.val=s3://v",
                ],
                "tracking.uri (got sqlite:///runs/mlflow.db) is relative",
            ),
        ],
    )
    def test_a_wrong_call(self, submit: Submit, arguments: list[str], message: str):
        assert message in refusal(submit(*arguments))

    def test_an_interpreter_without_ray(self, submit: Submit, interpreter):
        message = refusal(submit("--address", "h", QUICKSTART, PYTHON=interpreter("exit 1")))
        assert "set PYTHON" in message

    def test_a_head_that_is_not_there(self, submit: Submit):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
            assert f"{address} cannot be reached" in refusal(submit("--address", address, QUICKSTART))

    def test_no_token(self, submit: Submit, head: Head):
        message = refusal(submit("--address", head.address, QUICKSTART))
        assert "wants a token and none was found" in message and "RAY_AUTH_TOKEN_PATH" in message

    def test_a_wrong_token(self, submit: Submit, head: Head):
        message = refusal(submit("--address", head.address, QUICKSTART, RAY_AUTH_TOKEN="0" * 64))
        assert "refuses the token in RAY_AUTH_TOKEN" in message

    def test_a_token_file_that_is_not_there(self, submit: Submit, tmp_path: Path):
        done = submit("--address", "h", QUICKSTART, RAY_AUTH_TOKEN_PATH=tmp_path / "none")
        assert f"RAY_AUTH_TOKEN_PATH (got {tmp_path / 'none'})" in refusal(done)


class TestSubmittedEnvironment:
    """What Ray is asked for, without Ray: a server says that it is a head, and `ray job submit` is a note."""

    @pytest.fixture
    def address(self) -> Iterator[str]:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"ray_version": "2"}')

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    @pytest.fixture
    def submitted(self, submit: Submit, interpreter, address: str, tmp_path: Path) -> Callable[..., dict]:
        """The runtime environment of the job that is submitted with these words and variables."""
        note = tmp_path / "note"
        noted = f'[[ $* != *" job submit "* ]] || {{ printf "%s\\n" "$@" >{note}; exit; }}'
        ray = interpreter(f'{noted}; exec {sys.executable} "$@"')

        def environment(*words: str, **variables: str) -> dict:
            done = submit("--address", address, "--no-wait", *words, PYTHON=ray, **variables)
            assert done.returncode == 0, done
            outcome = note.read_text().splitlines()
            return json.loads(outcome[outcome.index("--runtime-env-json") + 1])

        return environment

    UPLOADED = (
        *("--working-dir", ".", QUICKSTART, "output=/r", "data.train=/t", "data.val=/v"),
        "tracking.uri=http://mlflow:5000",
    )

    @pytest.mark.parametrize("words", [(QUICKSTART,), UPLOADED], ids=["in place", "uploaded"])
    def test_a_job_that_is_stopped_has_time_to_save(self, submitted, words: tuple[str, ...]):
        assert submitted(*words)["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "600"
        given = submitted(*words, RAY_JOB_STOP_WAIT_TIME_S="45")
        assert given["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "45"

    def test_beside_it_is_what_each_way_needs(self, submitted):
        assert submitted(QUICKSTART)["env_vars"]["PYTHONPATH"] == str(ROOT)
        assert "/runs" in submitted(*self.UPLOADED)["excludes"]

    def test_a_time_that_is_none_is_refused(self, submit: Submit):
        message = refusal(submit("--address", "h", QUICKSTART, RAY_JOB_STOP_WAIT_TIME_S="soon"))
        assert "RAY_JOB_STOP_WAIT_TIME_S (got soon)" in message


def test_help_names_every_option_without_a_cluster(submit: Submit):
    done = submit("--help")
    assert done.returncode == 0
    for option in ("--address", "--python", "--working-dir", "--no-wait", "--help"):
        assert f"  {option} " in done.stdout


def test_the_job_runs_in_the_same_folder_with_the_same_words_and_its_status_comes_back(
    submit: Submit, head: Head, interpreter, tmp_path: Path
):
    script = 'echo "in $PWD with RAY_ADDRESS=${RAY_ADDRESS:+set}"; printf "<%s>" "$@"; echo; exit 7'
    done = submit(
        *("--address", head.address, "--python", interpreter(script)),
        *(ROOT / QUICKSTART, "stream.scale=[0.5, 1.0]", "tracking.experiment=a b$c"),
        cwd=tmp_path,
        RAY_AUTH_TOKEN_PATH=head.token_file,
    )
    assert done.returncode == 7, done
    assert f"in {tmp_path} with RAY_ADDRESS=set" in done.stdout
    words = [
        "-m",
        "spml_dist",
        "train",
        str(ROOT / QUICKSTART),
        "stream.scale=[0.5, 1.0]",
        "tracking.experiment=a b$c",
    ]
    assert "".join(f"<{word}>" for word in words) in done.stdout


def test_an_uploaded_folder_reaches_driver_and_workers_without_what_is_large(
    submit: Submit, head: Head, interpreter, tmp_path: Path
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
    done = submit(
        *("--address", head.address, "--working-dir", project),
        *(
            "--python",
            interpreter(f"echo got $4; echo files $(find . -type f | sort); {sys.executable} driver.py"),
        ),
        *(
            project / "configs" / "mine.yaml",
            f"output={tmp_path}",
            "data.train=s3://b/t",
            "data.val=s3://b/v",
        ),
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        RAY_AUTH_TOKEN=head.token_file.read_text(),
    )
    assert done.returncode == 0, done
    assert "got configs/mine.yaml" in done.stdout
    assert "files ./configs/data/small ./configs/mine.yaml ./driver.py ./module.py\n" in done.stdout
    assert "a worker has imported" in done.stdout


def test_a_training_runs_to_its_end_on_the_cluster(submit: Submit, head: Head, experiment, tmp_path: Path):
    config, *words = experiment(tmp_path, "far", "schedule.steps=3", "tracking.previews=0")
    done = submit("--address", head.address, config, *words, RAY_AUTH_TOKEN_PATH=head.token_file)
    assert done.returncode == 0, done
    assert "step      3  loss" in done.stdout and "trained; evaluate with" in done.stdout
    assert (tmp_path / "far" / "export" / "model.safetensors").exists()


def test_a_mistake_that_only_the_job_can_see_comes_back_with_its_line(
    submit: Submit, head: Head, tmp_path: Path
):
    done = submit(
        *("--address", head.address, QUICKSTART, f"output={tmp_path}", f"data.train={tmp_path}/none"),
        RAY_AUTH_TOKEN_PATH=head.token_file,
    )
    assert done.returncode == 2, done
    assert f"spml-dist: error: {tmp_path}/none" in done.stdout
