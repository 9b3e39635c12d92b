"""Batch norm over the images of all ranks is batch norm of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spml_dist import comm
from spml_dist.model.batch_norm import GlobalBatchNorm, globalise
from tests.spawn import spawn

CHANNELS, EPS, MOMENTUM = 5, 1e-3, 0.3
CASES = [[2, 3, 1], [4, 0, 2], [0, 5, 0], [1, 1, 1]]
"""images of each rank, for three ranks; with fewer, the last takes what is left"""
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
STEPS = 3


def dealt(case: list[int], world: int) -> list[int]:
    return [*case[: world - 1], sum(case[world - 1 :])]


def parameters(norm: nn.BatchNorm2d, dtype) -> nn.BatchNorm2d:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(CHANNELS, generator=generator))
        norm.bias.copy_(torch.randn(CHANNELS, generator=generator))
    return norm.to(dtype)


def batch(step: int, images: int, dtype, shape=(3, 4)):
    """Images far from mean 0, and the gradient that comes back to them."""
    generator = torch.Generator().manual_seed(100 * step + images)
    x = 10 + torch.randn(images, CHANNELS, *shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)


def trained(norm: nn.Module, counts: list[int], rank: int | None, dtype) -> dict:
    """What a few steps make of a norm on one rank's images, or (rank None) on all of them."""
    outputs, grads = [], []
    begin = 0 if rank is None else sum(counts[:rank])
    end = sum(counts) if rank is None else begin + counts[rank]
    for step in range(STEPS):
        x, upstream = batch(step, sum(counts), dtype)
        mine = x[begin:end].requires_grad_()
        y = norm(mine)
        (y * upstream[begin:end]).sum().backward()
        outputs.append(y.detach())
        grads.append(mine.grad)
    return {
        "output": outputs,
        "grad": grads,
        "parameters": [norm.weight.grad, norm.bias.grad],
        "statistics": [norm.running_mean, norm.running_var],
        "tracked": norm.num_batches_tracked.item(),
    }


def observe(rank: int) -> dict:
    return {
        (number, dtype): trained(
            parameters(GlobalBatchNorm(CHANNELS, EPS, MOMENTUM), dtype),
            dealt(case, comm.world()),
            rank,
            dtype,
        )
        for number, case in enumerate(CASES)
        for dtype in TOLERANCE
    }


@pytest.fixture(scope="module", params=[1, 2, 3])
def seen(request) -> list[dict]:
    return [observe(0)] if request.param == 1 else spawn(observe, request.param)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_ranks_together_are_batch_norm_of_the_whole_batch(seen, number, dtype):
    counts = dealt(CASES[number], len(seen))
    expected = trained(parameters(nn.BatchNorm2d(CHANNELS, EPS, MOMENTUM), dtype), counts, None, dtype)
    ours = [of_rank[number, dtype] for of_rank in seen]
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for step in range(STEPS):
        for what in ("output", "grad"):
            together = torch.cat([one[what][step] for one in ours])
            torch.testing.assert_close(together, expected[what][step], **close)
    for i in range(2):
        summed = sum(one["parameters"][i] for one in ours)
        torch.testing.assert_close(summed, expected["parameters"][i], **close)
    for one in ours:
        assert one["tracked"] == STEPS
        for mine, first, whole in zip(
            one["statistics"], ours[0]["statistics"], expected["statistics"], strict=True
        ):
            assert torch.equal(mine, first), "every rank keeps the same statistics"
            torch.testing.assert_close(mine, whole, **close)


def test_evaluation_uses_the_running_statistics():
    ours, theirs = (
        parameters(kind(CHANNELS, EPS), torch.float32) for kind in (GlobalBatchNorm, nn.BatchNorm2d)
    )
    x, _ = batch(0, 4, torch.float32)
    for norm in (ours, theirs):
        norm(x)
        norm.eval()
    torch.testing.assert_close(ours(x[:1]), theirs(x[:1]))
    assert ours(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_images_are_normalised_in_float32(training):
    norm = parameters(GlobalBatchNorm(CHANNELS, EPS), torch.float32).train(training)
    x, upstream = batch(0, 4, torch.bfloat16)
    exact = x.float().requires_grad_()
    x.requires_grad_()
    y, expected = norm(x), norm(exact)
    (y * upstream).sum().backward()
    (expected * upstream.float()).sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.to(torch.bfloat16))
    torch.testing.assert_close(x.grad.float(), exact.grad, rtol=2e-2, atol=2e-2)


def test_a_norm_whose_parameters_are_bfloat16_works_too():
    norm = parameters(GlobalBatchNorm(CHANNELS, EPS), torch.bfloat16)
    x, _ = batch(0, 4, torch.bfloat16)
    y = norm(x)
    y.float().square().mean().backward()
    assert y.dtype == norm.weight.grad.dtype == torch.bfloat16 and torch.isfinite(norm.weight.grad).all()


def network() -> nn.Module:
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
        BatchNormAct2d(CHANNELS, eps=EPS, momentum=MOMENTUM),
        nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU()),
        BatchNormAct2d(CHANNELS, apply_act=False),
    )


def test_replacing_the_norms_of_a_network_keeps_names_and_results():
    theirs, ours = network(), globalise(network())
    assert sum(isinstance(m, GlobalBatchNorm) for m in ours.modules()) == 3
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    x, upstream = batch(0, 4, torch.float32)
    for net in (theirs, ours):
        (net(x) * upstream).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_replacing_twice_changes_nothing():
    once = globalise(network())
    norms = [m for m in once.modules() if isinstance(m, GlobalBatchNorm)]
    assert [m for m in globalise(once).modules() if isinstance(m, GlobalBatchNorm)] == norms


def test_a_cast_to_16_bits_leaves_the_statistics_in_float32():
    norm = GlobalBatchNorm(3)
    norm.running_mean += 1 / 3
    norm.bfloat16()
    assert norm.weight.dtype == torch.bfloat16
    assert norm.running_mean.tolist() == torch.full((3,), 1 / 3).tolist()
    assert norm.eval()(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert norm.double().running_var.dtype == torch.float64
