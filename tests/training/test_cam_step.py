"""The CAM classifier's step and run: any number of processes, interrupted or not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import multilabel_soft_margin_loss

from spml_dist.config import load
from spml_dist.config.cam import cam_experiment
from spml_dist.model import export
from spml_dist.records import Batch
from spml_dist.tracking import metrics_log
from spml_dist.training import cam_step
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.claim import claim
from spml_dist.training.launch import folder_of
from tests.conftest import work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(600)

IMAGES, CLASSES, BACKGROUND = 6, 5, 2
FOREGROUND = [0, 1, 3, 4]
KNOWN = (True, True, False, True, False, True)


def scores() -> torch.Tensor:
    return torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def batch(images: slice = slice(None), known: tuple[bool, ...] = KNOWN) -> Batch:
    tags = torch.rand(IMAGES, CLASSES, generator=torch.Generator().manual_seed(2)) > 0.5
    tags[:, BACKGROUND] = False
    others = dict.fromkeys(("position", "image", "semantic", "regions", "window"))
    return Batch(("",) * IMAGES, tags=tags[images], tags_known=torch.tensor(known)[images], epoch=0, **others)


def loss_and_gradient(rank: int, parts: list[slice], known: tuple[bool, ...] = KNOWN) -> tuple:
    """What a rank's images come to: sum of losses over the ranks, its own gradient, and the log."""
    ours = scores()[parts[rank]].requires_grad_()
    part = cam_step.losses(ours, batch(parts[rank], known), BACKGROUND)
    part.total.backward()
    return part.total.item(), ours.grad / len(parts), cam_step.summary([part], None)


def test_the_loss_is_torch_s_over_the_images_whose_tags_are_known():
    theirs, known = scores().requires_grad_(), torch.tensor(KNOWN)
    tags = batch().tags[known][:, FOREGROUND].double()
    reference = multilabel_soft_margin_loss(theirs[known][:, FOREGROUND], tags)
    reference.backward()
    loss, gradient, message = loss_and_gradient(0, [slice(None)])
    assert loss == pytest.approx(reference.item(), rel=1e-12) == message["loss"]
    torch.testing.assert_close(gradient, theirs.grad, rtol=1e-12, atol=0)
    assert not gradient[~known].any() and not gradient[:, BACKGROUND].any()


DEALT = ([slice(0, 2), slice(2, 6)], [slice(0, 6), slice(6, 6)], [slice(0, 4), slice(4, 5)])
"""to two ranks: some each, none to one, only one with unknown tags to one"""


def each_dealt(rank: int) -> list[tuple]:
    return [loss_and_gradient(rank, parts) for parts in DEALT]


def test_two_processes_come_to_the_same_however_the_images_lie():
    for parts, *ranks in zip(DEALT, *spawn(each_dealt, 2), strict=True):
        loss, gradient, message = loss_and_gradient(0, [slice(0, parts[1].stop)])
        assert sum(rank[0] for rank in ranks) / 2 == pytest.approx(loss, rel=1e-12)
        torch.testing.assert_close(torch.cat([rank[1] for rank in ranks]), gradient, rtol=1e-12, atol=1e-15)
        assert all(rank[2] == pytest.approx(message) for rank in ranks)


def test_without_any_known_image_nothing_is_learnt_and_nothing_breaks():
    loss, gradient, message = loss_and_gradient(0, [slice(None)], (False,) * IMAGES)
    assert loss == 0 and not gradient.any()
    assert message == {"loss": 0, "tags/precision": 0, "tags/recall": 0, "tags/images": 0}


def test_precision_and_recall_count_the_tags_of_all_known_images():
    outcome = (scores() > 0)[:, FOREGROUND][torch.tensor(KNOWN)]
    tags = batch().tags[:, FOREGROUND][torch.tensor(KNOWN)]
    message = loss_and_gradient(0, [slice(None)])[2]
    assert message["tags/precision"] == pytest.approx(((outcome & tags).sum() / outcome.sum()).item())
    assert message["tags/recall"] == pytest.approx(((outcome & tags).sum() / tags.sum()).item())
    assert message["tags/images"] == sum(KNOWN)


def test_the_log_s_line_has_them():
    entry = {"step": 3, "loss": 0.5, "lr": 0.01, "images_per_s": 1, "memory_mb": 1024, "eta_s": 7}
    line = metrics_log.line(entry | {"tags/precision": 0.25, "tags/recall": 0.5})
    assert "loss 0.5000  tags precision 0.25 recall 0.50  lr" in line


def payload(words: list[str], stop_before: int | None = None) -> dict:
    """What `spml-dist cam train WORDS` hands to every worker."""
    config = absolute(cam_experiment(load(words[0], words[1:])), Path.cwd())
    claim(folder_of(config), config)
    return {"config": config.model_dump(mode="json"), "network": "cam", "stop_before": stop_before}


@pytest.fixture(scope="module")
def output(experiment, tmp_path_factory) -> Path:
    """Runs of four steps: one alone, one interrupted before its third step, two by two workers."""
    folder, briefly = tmp_path_factory.mktemp("runs"), ["cam.steps=4", "checkpoint.every=1"]
    names = {"alone": "float64", "interrupted": "float64", "two": "float64", "deepspeed": "float32"}
    words = {
        name: experiment(folder, name, *briefly, f"engine.precision={precision}")
        for name, precision in names.items()
    }
    words["deepspeed"].append("engine.zero_stage=1")
    threads = torch.get_num_threads()
    first, again = payload(words["interrupted"], stop_before=2), payload(words["interrupted"])
    outcome = work(0, [payload(words["alone"]), first, again])
    torch.set_num_threads(threads)
    outcome += spawn(work, 2, [payload(words["two"]), payload(words["deepspeed"])], seconds=400)[1]
    made = [one["steps"] for one in outcome]
    assert made == [[0, 1, 2, 3], [0, 1], [2, 3], [0, 1, 2, 3], [0, 1, 2, 3]], outcome
    return folder


def logged(output: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (output / f"{name}_cam" / "metrics.jsonl").read_text().splitlines()]


def test_the_run_is_one_as_any_other(output):
    entries = logged(output, "alone")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert {"loss", "tags/precision", "tags/recall", "lr", "images_per_s", "time/forward"} <= set(entries[0])
    assert not (output / "alone_cam" / "previews").exists()
    assert load(output / "alone_cam" / "config.yaml", []).schedule.steps == 4


@pytest.mark.parametrize(("name", "tolerance"), [("two", 1e-9), ("deepspeed", 1e-3)])
def test_the_number_of_workers_does_not_matter(output, name: str, tolerance: float):
    for ours, theirs in zip(logged(output, name), logged(output, "alone"), strict=True):
        keys = ("loss", "tags/precision", "tags/recall", "tags/images")
        assert [ours[key] for key in keys] == pytest.approx([theirs[key] for key in keys], rel=tolerance)


def test_interrupted_is_uninterrupted_to_the_bit(output):
    whole, parts = (logged(output, name) for name in ("alone", "interrupted"))
    assert [entry["loss"] for entry in parts] == [entry["loss"] for entry in whole]
    ours, theirs = (export.load(output / f"{n}_cam" / "export", "cam")[0] for n in ("interrupted", "alone"))
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_it_starts_from_where_no_class_is_favoured(output):
    """Small scores at first: the loss of saying nothing."""
    assert logged(output, "alone")[0]["loss"] == pytest.approx(math.log(2), abs=0.1)
