"""What a step does to a GPU, counted without one: operations, bytes, host reads, collectives and memory.

Tensors are fake ones of device `cuda` (torch's FakeTensorMode): they have shapes and no numbers. Whatever
asks for a number, or for a shape that depends on one, makes the host wait for a real GPU; it is counted with
the function that asked, and answered from `Counting.answers`, or else as if everything were true.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from spml_dist import comm

PACKAGE = Path(comm.__file__).parent
aten = torch.ops.aten
LANES = 14
"""instructions of a lane for an entry and relation in a kernel of the loss: exponential, masks and sums"""
FREE = {aten.detach.default, aten.lift_fresh.default, aten.alias.default, aten._unsafe_view.default}
"""operations that start nothing on a device and are not marked as views"""
IN_PLACE = {aten._fused_sgd_.default, aten._fused_adamw_.default}
"""of optimisers: they return nothing, and torch has no fake version of them"""
GATHERS = {aten.index_select.default, aten.index.Tensor, aten.gather.default}
"""that read of their first argument what they return"""
STATISTICS = {
    aten.batch_norm_stats.default: 2,
    aten.batch_norm_gather_stats_with_counts.default: 2,
    aten.batch_norm_backward_reduce.default: 4,
}
"""of batch norms on a GPU, for which torch has no fake version: how many numbers of a channel they return"""
UNIQUE = {
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.bincount.default,
}
SIZED_BY_VALUES = {*UNIQUE, aten.nonzero.default, aten.masked_select.default}


@dataclass
class Part:
    """What a part of a step came to on one rank."""

    operations: int = 0
    """that start a kernel (some of torch's own start several: a sort, a search for unique values)"""
    bytes: int = 0
    """read and written by them"""
    flops: int = 0
    """of products and convolutions"""
    kernel_seconds: Counter = field(default_factory=Counter)
    """by the name of a GPU: sum over the operations of the time that each takes there"""
    reads: Counter = field(default_factory=Counter)
    """file:function -> how often the host waited for the device"""
    copies: int = 0
    """from the host to the device"""
    collectives: int = 0
    collective_bytes: int = 0
    """that a rank sends or receives, whichever is more"""


class Counting(TorchDispatchMode):
    """Counts what is dispatched while it is entered, above a FakeTensorMode.

    rates: name of a GPU -> `Rates`; answers: (file:function, kind) -> what is read there, one value or a list
    of values to be gone through again and again. Kinds are `number`, `places` (of what is true) and `unique`
    (values). peak: bytes of device memory.
    """

    def __init__(
        self, rates: dict[str, Rates] | None = None, answers: dict[tuple[str, str], Any] | None = None
    ):
        super().__init__()
        self.rates, self.answers = rates or {}, answers or {}
        self.parts: dict[str, Part] = {}
        self.part = "step"
        self.peak = self.held = 0
        self.in_range = 1.0
        """share of the pixels × candidates of a block with ranges that are in them"""
        self._asked: Counter = Counter()
        self._storages: set[int] = set()

    @property
    def now(self) -> Part:
        return self.parts.setdefault(self.part, Part())

    def answer(self, kind: str, on_device: bool) -> Any:
        """Answer a read by the host, and count it; True where no answer is given."""
        place = site()
        if on_device:
            self.now.reads[place] += 1
        answer = self.answers.get((place, kind), True)
        if isinstance(answer, list):
            answer = answer[self._asked[place, kind] % len(answer)]
            self._asked[place, kind] += 1
        return answer

    def list_of(self, tensor: Tensor) -> list:
        """`tensor.tolist()` of one dimension, or of none."""
        if not tensor.is_cuda and tensor.constant is not None:
            return tensor.constant.tolist()
        place = site()
        if tensor.is_cuda:
            self.now.reads[place] += 1
        return [self.answer("number", False) for _ in range(len(tensor))]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.prim.device.default:
            return function(*args, **kwargs)
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        on_device = any(each.is_cuda for each in tensors)
        result = self._result(function, args, kwargs, on_device)
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        for output in outputs:
            self._hold(output)
        if function in FREE or function.is_view or not any(each.is_cuda for each in (*tensors, *outputs)):
            return result
        if function is aten._to_copy.default and not on_device:
            self.now.copies += 1
        self._operation(function, args, kwargs, tensors, outputs, result)
        return result

    def _operation(self, function, args, kwargs, tensors, outputs, result) -> None:
        now, written = self.now, {id(each) for each in outputs}
        flops, lanes = 0, 0
        if function._overloadpacket in flop_registry:
            flops = flop_registry[function._overloadpacket](*args, **kwargs, out_val=result)
        elif function.namespace == "spml_dist":
            flops, lanes = self._kernels(function, args)
        moved = sum(_bytes(each) for each in tensors if id(each) not in written)
        moved += sum(_bytes(each) for each in outputs)
        if function in GATHERS:
            moved -= max(0, _bytes(args[0]) - _bytes(result))
        now.operations += 1
        now.bytes += moved
        now.flops += flops
        wide = "bfloat16" not in args and any(each.dtype == torch.float32 for each in tensors)
        flops *= 3 if "tf32x3" in args else 1
        for name, rates in self.rates.items():
            now.kernel_seconds[name] += rates.seconds(flops, moved, wide, lanes)

    def _kernels(self, function, args) -> tuple[int, int]:
        """Operations in products, and in all else, of the kernels of `spml_dist.method.fused_loss`."""
        embedding, prototype, *_ = args
        ranges, kappas = args[6], args[7] if function.__name__.startswith("contrast_sums") else args[8]
        entries = len(embedding) * len(prototype) * (1 if ranges is None else self.in_range)
        channels = embedding.shape[1]
        if function.__name__.startswith("contrast_sums"):
            return int(2 * entries * channels), int(LANES * entries * len(kappas))
        learning = args[10] / len(prototype)  # candidates with a gradient; the products of both directions
        return int(4 * entries * channels * (1 + learning)), int(
            LANES * entries * len(kappas) * (1 + learning)
        )

    def _result(self, function, args, kwargs, on_device: bool):
        """The operation's own result, or, where it needs numbers that are not there, an invented one."""
        if function is aten._local_scalar_dense.default:
            value, dtype = self.answer("number", on_device), args[0].dtype
            return (
                bool(value)
                if dtype == torch.bool
                else float(value)
                if dtype.is_floating_point
                else int(value)
            )
        if (
            function is aten._to_copy.default
            and on_device
            and kwargs.get("device", args[0].device).type == "cpu"
        ):
            if not kwargs.get("non_blocking"):
                self.now.reads[site()] += 1
            return function(*args, **kwargs)
        if function in SIZED_BY_VALUES:
            kind = "unique" if function in UNIQUE else "places"
            return _invented(function, args, kwargs, self.answer(kind, on_device))
        if function in IN_PLACE:
            return None
        if function in STATISTICS:
            of_channel = args[0].new_empty(args[0].shape[1], dtype=torch.float32)
            return tuple(torch.empty_like(of_channel) for _ in range(STATISTICS[function]))
        if function in (aten.batch_norm_elemt.default, aten.batch_norm_backward_elemt.default):
            return torch.empty_like(args[0])
        if function in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            # One number of the host in the places of a mask: torch fills these without asking how many.
            filled = len(args) > 2 and not args[2].is_cuda and args[2].numel() == 1
            args = (args[0], self._places(args[1], on_device and not filled), *args[2:])
        return function(*args, **kwargs)

    def _places(self, indices, on_device: bool):
        """Indices with masks turned into places, as torch does it, which waits for their number."""
        if not any(each is not None and each.dtype == torch.bool for each in indices):
            return indices
        answer = self.answer("places", on_device)
        places: list[Tensor | None] = []
        for index in indices:
            if index is None or index.dtype != torch.bool:
                places.append(index)
                continue
            count = index.numel() if answer is True else int(answer)
            places += [index.new_empty(count, dtype=torch.int64) for _ in range(index.dim())]
        return places

    def _hold(self, tensor: Tensor) -> None:
        """Follow a storage on the device until nobody has it any more."""
        if not tensor.is_cuda:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self._storages.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.held -= size


@dataclass(frozen=True)
class Rates:
    """What a GPU does in a second, as its maker writes it, and how much of that is reached."""

    memory: float
    """bytes moved"""
    float32: float
    """operations in products of float32, as TF32 if that is how they are computed"""
    bfloat16: float
    """operations in products of bfloat16"""
    link: float
    """bytes that one GPU sends to others"""
    lanes: float
    """instructions of all lanes"""
    reached: tuple[float, float] = (0.5, 0.7)
    """of the products' rate, of the memory's and the link's"""
    kernel: float = 2e-6
    """seconds of the smallest kernel"""
    launch: float = 5e-6
    """seconds in which the host starts an operation"""
    read: float = 2e-5
    """seconds from the device's last operation to the host's next one"""
    latency: float = 3e-5
    """seconds of the smallest collective"""

    def seconds(self, flops: int, moved: int, wide: bool, lanes: int) -> float:
        """Of one operation on the device."""
        products = flops / (self.reached[0] * (self.float32 if wide else self.bfloat16))
        return max(
            self.kernel,
            products + lanes / (self.reached[1] * self.lanes),
            moved / (self.reached[1] * self.memory),
        )

    def of_part(self, part: Part, name: str) -> float:
        """Seconds of a part: of the device or of the host that starts its operations, whichever is slower."""
        return (
            max(part.kernel_seconds[name], part.operations * self.launch)
            + part.reads.total() * self.read
            + part.collectives * self.latency
            + part.collective_bytes / (self.reached[1] * self.link)
        )


GPUS = {
    "H100": Rates(3.35e12, 494e12, 989e12, 50e9, 132 * 128 * 1.755e9),
    "H200": Rates(4.8e12, 494e12, 989e12, 50e9, 132 * 128 * 1.755e9),
}
"""NVIDIA's data sheets of the SXM modules, products without sparsity; one 400 Gb/s link a GPU"""


@contextmanager
def counted(
    rates: dict[str, Rates] | None = None, answers: dict[tuple[str, str], Any] | None = None, world: int = 1
) -> Iterator[Counting]:
    """Count a block of code that runs on fake tensors, as one of `world` ranks with equal parts."""
    with FakeTensorMode(allow_non_fake_inputs=True), Counting(rates, answers) as counting:
        ranks = mock.patch.object(comm, "dist", _ranks(counting, world))
        # Its own reads number by number; a real tensor is copied whole.
        with ranks, mock.patch.object(FakeTensor, "tolist", lambda tensor: counting.list_of(tensor)):
            yield counting


def _ranks(counting: Counting, world: int) -> SimpleNamespace:
    """In the place of torch.distributed: collectives are counted, and every rank has what this one has."""

    def count(sent: int) -> None:
        counting.now.collectives += 1
        counting.now.collective_bytes += sent

    def all_reduce(tensor: Tensor) -> None:
        count(2 * _bytes(tensor))  # a ring sends each byte twice, whatever the number of ranks

    def all_gather_into_tensor(out: Tensor, tensor: Tensor) -> None:
        count(_bytes(out))

    def all_to_all_single(out: Tensor, tensor: Tensor, *sizes: list[int]) -> None:
        count(_bytes(tensor))

    return SimpleNamespace(
        is_initialized=lambda: world > 1,
        get_world_size=lambda: world,
        get_rank=lambda: 0,
        get_backend=lambda: "nccl",
        all_reduce=all_reduce,
        all_gather_into_tensor=all_gather_into_tensor,
        all_to_all_single=all_to_all_single,
    )


@torch.no_grad()  # as torch's engine: nothing is kept for a gradient's gradient
def backward(loss: Tensor) -> None:
    """What `loss.backward()` does. torch's own engine asks the driver for the device, which is not there.

    loss: scalar, which loses its graph: what was kept for the gradient goes as it is used.
    """
    root, waiting = loss.grad_fn, Counter()
    grads: dict[Any, list[Tensor | None]] = {root: [torch.ones_like(loss)]}
    loss.detach_()
    found, seen = [root], {root}
    while found:
        for node, _ in found.pop().next_functions:
            if node is not None:
                waiting[node] += 1
                if node not in seen:
                    seen.add(node)
                    found.append(node)
    del seen
    ready = [root]
    del root
    while ready:
        node = ready.pop()
        given = grads.pop(node)
        if hasattr(node, "variable"):  # a leaf's
            _accumulate(node.variable, given[0])
            continue
        apply = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        results = apply(*given) if any(each is not None for each in given) else None
        results = results if isinstance(results, tuple) else (results,) * len(node.next_functions)
        edges = list(zip(node.next_functions, results, strict=False))
        del node, given, results, apply
        while edges:
            (target, place), grad = edges.pop()
            if target is None:
                continue
            collected = grads.setdefault(target, [])
            collected += [None] * (place + 1 - len(collected))
            if grad is not None:
                before = collected[place]
                collected[place] = grad if before is None else before + grad
            waiting[target] -= 1
            if not waiting[target]:
                del waiting[target]
                ready.append(target)
        del edges


def _accumulate(variable: Tensor, grad: Tensor | None) -> None:
    if grad is None:
        return
    for hook in (variable._backward_hooks or {}).values():
        grad = hook(grad) or grad
    if variable.grad is None:
        variable.grad = grad
    else:
        variable.grad += grad


def site() -> str:
    """file:function of the package that runs, `backward` where none does."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE) and path.name not in ("tensor_records.py", "comm.py"):
            return f"{path.relative_to(PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _invented(function, args, kwargs, answer):
    """What a search for places or unique values may have found: `answer` of them, else as many as can be."""
    source = args[0]
    count = source.numel() if answer is True else int(answer)
    whole = source.new_empty(count)
    if function is aten.unique_dim.default:  # of rows, as everything here asks for
        places = source.new_empty(len(source), dtype=torch.int64)
        return source.new_empty(count, *source.shape[1:]), places, places.new_empty(count)
    number = source.new_empty(source.shape, dtype=torch.int64)
    if function is aten.nonzero.default:
        return source.new_empty(count, source.dim(), dtype=torch.int64)
    if function is aten.bincount.default:
        return number.new_empty(count)
    if function is aten.masked_select.default:
        return whole
    return whole, number, number.new_empty(count)
