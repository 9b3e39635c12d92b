"""Workers on two Ray nodes, and the nodes themselves, are killed: all start again, and in the end the run is
what it would have been.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import pytest

from tests.drills import faulty_train
from tests.drills.faults import PLACES
from tests.drills.nodes import Cluster, cluster
from tests.drills.running import finish, made_again, record, resumed_from, training
from tests.drills.same_run import assert_same, logged, seconds_to_go_on
from tests.training.test_checkpoint import BRIEFLY

pytestmark = [pytest.mark.drill, pytest.mark.timeout(2700)]

EVERY = 5
STEPS, MANY = 60, 500
KILLS = [("forward", 8), ("collective", 18), ("publish", 28), ("engine_file", 37), ("bank_file", 47)]
"""where a worker dies, and in which step, from 0"""

Words = Callable[[str, int], list[str]]


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def words(experiment, output: Path) -> Words:
    """words(name, steps): what follows `spml-dist train`."""

    def given(name: str, steps: int) -> list[str]:
        small = (*BRIEFLY, "stream.batch=2", "engine.workers=2")
        return experiment(output, name, *small, f"checkpoint.every={EVERY}", f"schedule.steps={steps}")

    return given


@pytest.fixture(scope="module")
def undisturbed(ray: Cluster, words: Words, output: Path) -> Callable[[int], Path]:
    """undisturbed(steps): the run that nobody disturbed."""

    def made(steps: int) -> Path:
        folder = output / f"undisturbed-{steps}"
        if not folder.exists():
            finish(folder, words(folder.name, steps), ray.environment)
        return folder

    return made


def failures(folder: Path) -> list[dict]:
    return list(map(json.loads, (folder / "restarts.jsonl").read_text().splitlines()))


def killed(ray: Cluster, folder: Path, given: list[str], kills: Sequence[tuple[str, int]]) -> list[dict]:
    """Train through kills (places and steps). Of each: step that was reached, where it went on, seconds."""
    plan = faulty_train.plan(folder.with_name(f"{folder.name}-kills"), kills)
    environment = ray.environment | {faulty_train.PLAN: faulty_train.written(plan)}
    with training(folder, given, environment, "tests.drills.faulty_train") as run:
        status, error = run.end(2400)
    assert status == 0, error
    assert all(kill.happened() for kill in plan)
    outcome = []
    for kill, failure, start in zip(plan, failures(folder), resumed_from(folder), strict=True):
        step, died = failure["step"], Path(kill.witness).stat().st_mtime
        assert kill.step - 1 <= step <= kill.step + 2 * EVERY, "it died where it had to"
        assert 0 <= step - start <= 2 * EVERY, "one interval, and what was being written"
        outcome.append({"step": step, "start": start, "seconds": seconds_to_go_on(folder, died, step)})
    return outcome


def test_wherever_a_worker_dies(ray, words, undisturbed, output):
    """Kills at every place of one run."""
    folder = output / "killed"
    outcome = killed(ray, folder, words("killed", STEPS), KILLS)
    assert_same(folder, undisturbed(STEPS))
    for (place, _), each in zip(KILLS, outcome, strict=True):
        done = f"SIGKILL to rank {PLACES[place]} of two after step {each['step']}"
        record(f"worker killed: {place}", done, made_again(each["step"], each["start"]), each["seconds"])


def test_a_node_is_killed_with_all_on_it_and_another_one_comes(ray, words, undisturbed, output):
    folder = output / "node"
    with training(folder, words("node", STEPS), ray.environment) as run:
        run.wait_for_step(12)
        ray.kill("node")
        died = time.time()
        run.wait_for((folder / "restarts.jsonl").exists)
        ray.start_node()
        status, error = run.end()
    assert status == 0, error
    assert_same(folder, undisturbed(STEPS))
    (failure,), (start,) = failures(folder), resumed_from(folder)
    done = f"SIGKILL to a node and all on it after step {failure['step']}; then another one started"
    seconds = seconds_to_go_on(folder, died, failure["step"])
    record("node killed", done, made_again(failure["step"], start), seconds)


def test_ten_random_kills_in_five_hundred_steps(ray, words, undisturbed, output):
    dice, folder = random.Random(20), output / "ten-kills"
    steps = sorted(dice.sample(range(10, 480, 16), 10))
    kills = [(dice.choice(list(PLACES)), step) for step in steps]
    outcome = killed(ray, folder, words("ten-kills", MANY), kills)
    assert_same(folder, undisturbed(MANY))
    lost = made_again(sum(each["step"] for each in outcome), sum(each["start"] for each in outcome))
    done = f"SIGKILL after steps {', '.join(str(each['step']) for each in outcome)} of {MANY}"
    record("ten random kills", done, f"{lost} in all", median(each["seconds"] for each in outcome))


def test_the_head_is_killed_and_the_same_command_goes_on(ray, words, undisturbed, output):
    """Last: a cluster ends with its head."""
    reference, folder = undisturbed(STEPS), output / "head"
    given = words("head", STEPS)
    with training(folder, given, ray.environment) as run:
        run.wait_for_step(12)
        ray.kill("head")
        died = time.time()
        status, error = run.end(900)
        ended = time.time() - died
    assert status == 2 and "nobody answers there" in error and "Traceback" not in error, error
    step = logged(folder)[-1]["step"]
    ray.end()
    ray.start_head()
    ray.start_node()
    up = time.time()
    finish(folder, given, ray.environment)
    assert_same(folder, reference)
    done = f"SIGKILL to the head and all on it after step {step}; the training ended after {ended:.0f} s"
    seconds = seconds_to_go_on(folder, up, step)
    record(
        "head killed",
        f"{done}; head and node again, and the same command",
        made_again(step, resumed_from(folder)[0]),
        seconds,
    )
