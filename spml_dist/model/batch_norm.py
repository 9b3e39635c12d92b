"""Batch norm over the images of all ranks, on any device.

Statistics are all-reduced, so a step does not depend on how many workers share its images. A rank
without images takes part in the same collectives.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spml_dist import comm


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics cover all ranks; `act` follows it (timm fuses the two)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.act: nn.Module | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GlobalBatchNorm:
        """Casting the network to 16 bits leaves the running statistics alone: small steps would vanish."""
        before = self._running()
        super()._apply(fn, recurse)
        mean, _ = self._running()
        if mean.dtype.itemsize < 4:
            self.running_mean, self.running_var = (value.to(mean.device) for value in before)
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.training and comm.world() == 1 and x.numel() > x.shape[1]:
            y = self._alone(x)
        elif self.training and x.is_cuda:
            y = self._on_gpu(x)
        elif self.training:
            y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
            self._follow(mean, variance, count)
        else:
            mean, variance = self._running()
            affine = self.weight.to(mean), self.bias.to(mean)
            y = nn.functional.batch_norm(x.to(mean), mean, variance, *affine, False, 0.0, self.eps).to(x)
        return y if self.act is None else self.act(y)

    def _alone(self, x: Tensor) -> Tensor:
        """One process has all images: torch's own kernel, which passes over them less often."""
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        mean, variance = self._running()
        affine = self.weight.to(mean), self.bias.to(mean)
        return nn.functional.batch_norm(
            x.to(mean), mean, variance, *affine, True, self.momentum, self.eps
        ).to(x)

    def _on_gpu(self, x: Tensor) -> Tensor:
        """The kernels of torch's SyncBatchNorm: a pass for the statistics and one for the result."""
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        return _OnGpu.apply(x, self.weight, self.bias, *self._running(), self.momentum, self.eps)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of a step, as torch's own batch norm does."""
        running_mean, running_variance = self._running()
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        running_mean.lerp_(mean.to(running_mean), self.momentum)
        running_variance.lerp_(unbiased.to(running_variance), self.momentum)

    def _running(self) -> tuple[Tensor, Tensor]:
        assert self.running_mean is not None and self.running_var is not None  # it always tracks them
        return self.running_mean, self.running_var


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float):
        images = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        sums = images.new_zeros(2 * x.shape[1] + 1, dtype=torch.float64)
        if len(x):
            n = x.numel() // x.shape[1]
            mean = images.mean(dim=(0, 2, 3))
            # Squares of what is left after the mean, so that a large mean costs no digits.
            square = (images - mean.view(1, -1, 1, 1)).square_().sum(dim=(0, 2, 3)).double()
            mean = mean.double()
            sums = torch.cat([mean * n, square + mean * mean * n, mean.new_tensor([n])])
        sums = comm.sum_all(sums)
        count = sums[-1]
        mean, square = (sums[:-1] / count.clamp(min=1)).chunk(2)
        variance = (square - mean * mean).clamp(min=0)
        inverse = (variance + eps).rsqrt()
        # torch's own kernel with these statistics as if they were running ones.
        y = (
            torch.nn.functional.batch_norm(
                images,
                mean.to(images),
                variance.to(images),
                weight.to(images),
                bias.to(images),
                False,
                0.0,
                eps,
            )
            if len(x)
            else images.clone()
        )
        ctx.save_for_backward(x, weight, mean.to(images), inverse.to(images), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, grad: Tensor, *_):
        x, weight, mean, inverse, count = ctx.saved_tensors
        images, grad = x.to(mean), grad.to(mean)
        shape = (1, -1, 1, 1)
        # The gradient through the statistics, in which every image of every rank has a part: with the
        # normalised x̂, weight/σ · (grad - mean(grad) - x̂ · mean(grad · x̂)), means over all ranks.
        centred = images - mean.view(shape)
        local_bias = grad.sum(dim=(0, 2, 3))
        local_weight = (grad * centred).sum(dim=(0, 2, 3)) * inverse
        both = comm.sum_all(torch.cat([local_bias, local_weight]).double())
        sum_grad, sum_grad_hat = (both / count.clamp(min=1)).to(mean).chunk(2)
        factor = (weight.to(mean) * inverse).view(shape)
        grad_x = (
            (grad - sum_grad.view(shape))
            .sub_(centred.mul_((inverse * sum_grad_hat).view(shape)))
            .mul_(factor)
        )
        # Each rank's own share of the parameters' gradient: the engine averages it like all others.
        return grad_x.to(x.dtype), local_weight.to(weight.dtype), local_bias.to(weight.dtype), None


class _OnGpu(torch.autograd.Function):
    """As `torch.nn.SyncBatchNorm`, but ranks without images are not sought, for which the host would wait."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, running_mean, running_var, momentum, eps):
        x, channels = x.contiguous(memory_format=_layout(x)), x.shape[1]
        if len(x):
            mean, inverse = torch.batch_norm_stats(x, eps)
            count = mean.new_full((1,), x.numel() // channels)
        else:
            # A number of pixels that vanishes beside any other, and no 0 to divide by.
            mean, inverse = (weight.new_full((channels,), v, dtype=torch.float32) for v in (0, 1))
            count = mean.new_full((1,), 1e-20)
        table = comm.gather_equal(torch.cat([mean, inverse, count]))
        means, inverses, counts = table.split([channels, channels, 1], dim=1)
        counts = counts.reshape(-1).to(running_mean)
        running = running_mean, running_var, momentum, eps, counts
        mean, inverse = torch.batch_norm_gather_stats_with_counts(x, means, inverses, *running)
        wide = weight.to(mean)
        ctx.save_for_backward(x, wide, mean, inverse, counts.to(torch.int32))
        ctx.dtype = weight.dtype
        return torch.batch_norm_elemt(x, wide, bias.to(mean), mean, inverse, eps) if len(x) else x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight, mean, inverse, counts = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(x))
        if len(x):
            both, centred, of_weight, of_bias = torch.batch_norm_backward_reduce(
                grad, x, mean, inverse, weight, True, True, True
            )
        else:
            both, centred, of_weight, of_bias = (torch.zeros_like(mean) for _ in range(4))
        # Each rank's own share of the parameters' gradient: the engine averages it like all others.
        both, centred = comm.sum_all(torch.cat([both, centred])).chunk(2)
        if len(x):
            grad = torch.batch_norm_backward_elemt(grad, x, mean, inverse, weight, both, centred, counts)
        return grad, of_weight.to(ctx.dtype), of_bias.to(ctx.dtype), None, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def globalise(module: nn.Module) -> nn.Module:
    """Replace every batch norm of a module by one over all ranks; names of parameters stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, GlobalBatchNorm):
            setattr(module, name, _replacement(child))
        else:
            globalise(child)
    return module


def _replacement(norm: nn.BatchNorm2d) -> GlobalBatchNorm:
    new = GlobalBatchNorm(norm.num_features, norm.eps, 0.1 if norm.momentum is None else norm.momentum)
    new.load_state_dict({k: v for k, v in norm.state_dict().items() if k in new.state_dict()})
    act = getattr(norm, "act", None)  # timm's BatchNormAct2d
    new.act = None if isinstance(act, nn.Identity) else act
    return new
