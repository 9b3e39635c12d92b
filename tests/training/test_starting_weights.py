"""What a run starts from is logged, decides how its images are normalised, and is needed only once."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from spml_dist.errors import ConfigError
from spml_dist.model import export
from spml_dist.records import Normalisation
from spml_dist.training import build, checkpoint, loop
from tests.conftest import payload, work

OWN = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_a_run_goes_on_without_the_weights_that_it_started_from(experiment, tmp_path, monkeypatch):
    """As the one that was never interrupted, bit by bit."""
    weights = tmp_path / "weights.pt"
    torch.save(timm.create_model("resnet10t").state_dict(), weights)
    weights.with_suffix(".json").write_text(json.dumps({"mean": OWN.mean, "deviation": OWN.deviation}))
    settings = (f"model.weights={weights}", "schedule.steps=4", "tracking.previews=0")
    whole, halved = (experiment(tmp_path, name, *settings) for name in ("whole", "halved"))
    with monkeypatch.context() as patched:  # `work` leaves the step that it stopped in the loop
        patched.setattr(loop, "make_step", loop.make_step)
        work(0, [payload(whole), payload(halved, stop_before=2)])
    weights.unlink()
    weights.with_suffix(".json").unlink()
    assert work(0, [payload(halved)]) == [{"steps": [2, 3], "error": None}]

    log = (tmp_path / "halved" / "train.log").read_text()
    assert log.count(f"the backbone starts from {weights}\n") == 1
    folder = tmp_path / "halved" / "checkpoints"
    assert Normalisation.of(checkpoint.stream_state(checkpoint.latest(folder))) == OWN
    ours, theirs = (export.load(tmp_path / name / "export")[0] for name in ("halved", "whole"))
    assert ours.normalisation == theirs.normalisation == OWN
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_workers_that_found_different_weights_are_an_error(monkeypatch):
    """One machine reaches the hub, another does not."""
    monkeypatch.setattr(build.comm, "from_every_rank", lambda origin: [origin, "timm's weights a"])
    build._require_one_origin("timm's weights a")
    with pytest.raises(
        ConfigError, match=r"model\.pretrained gives the workers different weights \(got b, timm"
    ):
        build._require_one_origin("b")
