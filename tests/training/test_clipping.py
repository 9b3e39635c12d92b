"""Clipping encoder and classifier apart: as torch on each, with any number of workers and any ZeRO stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from spml_dist.config import load
from spml_dist.config.models import OptimizerConfig
from spml_dist.errors import ConfigError
from spml_dist.model import export
from spml_dist.training.clipping import Clipping, is_classifier
from tests.conftest import SMALL, payload, work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(900)

APART = ["optimizer.clip=apart", "optimizer.clip_norm=0.5"]
VARIANTS = {
    "apart": APART,
    "zero1": [*APART, "engine.zero_stage=1"],
    "zero2": [*APART, "engine.zero_stage=2"],
    "zero3": [*APART, "engine.zero_stage=3"],
    "in_two_parts": [*APART, "engine.accumulation=2"],
    "together": ["optimizer.clip_norm=0.5"],
}
BRIEFLY = ["schedule.steps=2", "schedule.warmup=1", "tracking.previews=0", "checkpoint.every=9"]


def gradients(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (2, 2, 2))]


def clipping(**settings) -> Clipping:
    return Clipping(OptimizerConfig(**settings), torch.device("cpu"))


@pytest.mark.parametrize("limit", [0.1, 3.0, 1e9])
def test_each_part_is_clipped_as_torch_clips_it(limit):
    parts, expected = (gradients(0), gradients(1)), []
    parts[1][0].mul_(100)
    for part in parts:
        parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in part]
        for parameter, gradient in zip(parameters, part, strict=True):
            parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_(parameters, limit)
        expected += [parameter.grad for parameter in parameters]
    clipping(clip="apart", clip_norm=limit).apply(*parts, divided=False)
    torch.testing.assert_close([*parts[0], *parts[1]], expected)


def test_together_it_only_measures():
    encoder, classifier = gradients(0), gradients(1)
    measured = clipping(clip_norm=1.0)
    measured.apply(encoder, classifier, divided=False)
    assert all(torch.equal(a, b) for a, b in zip(encoder, gradients(0), strict=True))
    report = measured.report()
    norms = [torch.cat([g.flatten() for g in part]).norm().item() for part in (encoder, classifier)]
    assert [report["gradient/encoder"], report["gradient/classifier"]] == pytest.approx(norms)
    assert report["clipped/encoder"] == report["clipped/classifier"] == 1


def test_the_share_of_clipped_steps_is_that_since_the_last_report():
    limited = clipping(clip="apart", clip_norm=1.0)
    small = [[torch.tensor([0.5])], [torch.tensor([0.6])]]
    large = [[torch.tensor([5.0])], [torch.tensor([0.6])]]
    for parts in (small, large, small, small):
        limited.apply(*[[g.clone() for g in part] for part in parts], divided=False)
    report = limited.report()
    assert (report["clipped/encoder"], report["clipped/classifier"]) == (0.25, 0)
    limited.apply(*large, divided=False)
    assert limited.report()["clipped/encoder"] == 1


def test_without_a_norm_nothing_is_clipped_and_nothing_said_of_it():
    free = clipping(clip_norm=None)
    free.apply(gradients(0), [], divided=False)
    report = free.report()
    assert list(report) == ["gradient/encoder", "gradient/classifier"] and report["gradient/classifier"] == 0


@pytest.mark.parametrize(
    ("name", "belongs"),
    [
        ("backbone.conv1.weight", False),
        ("head.branches.0.bias", False),
        ("classifier.mix.weight", True),
        ("classify.weight", True),
    ],
)
def test_the_classifier_of_either_network_is_told_by_its_name(name, belongs):
    assert is_classifier(name) == belongs


def test_apart_needs_a_norm():
    with pytest.raises(ConfigError, match=r"optimizer\.clip \(got apart\); optimizer\.clip_norm is null"):
        load(SMALL, ["optimizer.clip=apart", "optimizer.clip_norm=null"])


@pytest.fixture(scope="module")
def output(experiment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    runs = [payload(experiment(folder, name, *BRIEFLY, *words)) for name, words in VARIANTS.items()]
    ranks = spawn(work, 2, runs, seconds=600)
    alone = {"alone": APART, "alone_in_two_parts": VARIANTS["in_two_parts"]}
    runs = [payload(experiment(folder, name, *BRIEFLY, *words)) for name, words in alone.items()]
    ranks.append(work(0, runs))
    assert not [each["error"] for rank in ranks for each in rank if each["error"]]
    return folder


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *((name, "apart") for name in ("zero1", "zero2", "zero3", "alone")),
        ("in_two_parts", "alone_in_two_parts"),
    ],
)
def test_workers_and_stages_change_nothing(output, name, other):
    keys = ("loss", "gradient/encoder", "gradient/classifier", "clipped/encoder", "clipped/classifier")
    for here, there in zip(logged(output / name), logged(output / other), strict=True):
        assert [here[key] for key in keys] == pytest.approx([there[key] for key in keys], rel=1e-3)
    ours, theirs = (export.load(output / run / "export")[0] for run in (name, other))
    for (key, here), there in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4, msg=key)


def test_apart_the_classifier_keeps_its_step_where_the_encoder_s_gradient_is_large(output):
    entry = logged(output / "apart")[0]
    assert entry["gradient/encoder"] > 5 * entry["gradient/classifier"] > 5 * 0.5
    apart, together = (velocities(output / name) for name in ("apart", "together"))
    assert apart["classifier"] > 5 * together["classifier"]
    assert apart["encoder"] == pytest.approx(together["encoder"], rel=0.1)


def velocities(run: Path) -> dict[str, float]:
    """Norm of each part's momentum after the last step."""
    momentum = load_file(run / "checkpoints" / "step_000002" / "engine" / "momentum.safetensors")
    parts = {"encoder": [], "classifier": []}
    for name, value in momentum.items():
        parts["classifier" if is_classifier(name) else "encoder"].append(value.flatten())
    return {part: torch.cat(values).norm().item() for part, values in parts.items()}
