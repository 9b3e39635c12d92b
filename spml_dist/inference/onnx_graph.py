"""A segmenter as an ONNX graph that takes pictures as they are, and the proof that it gives the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from spml_dist.errors import RunError
from spml_dist.inference.whole_image import MULTIPLE
from spml_dist.method.kmeans import unit
from spml_dist.model.segmenter import Segmenter

TOLERANCE = 1e-4
"""by which no number of the graph's outputs may differ from the network's"""
SIZES = ((1, 96, 136), (2, 75, 61))
"""(images, height, width) at which both are compared: none is that of the export, one no multiple of 8"""
INPUT, OUTPUTS = "images", ("scores", "embedding")
_EXAMPLE = (2, 112, 80)
_EXTRA = "pip install 'spml-dist[onnx]'"


class WholeImages(nn.Module):
    """What `whole_image` does around a segmenter, as one module."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: Segmenter):
        super().__init__()
        self.network = network
        mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in _normalisation(network))
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, 3] uint8 RGB of any size -> (probability of each class at each pixel, [B, K, H, W];
        unit embedding on the grid, [B, C, ⌈H/8⌉·2, ⌈W/8⌉·2])."""
        height, width = images.shape[1], images.shape[2]
        normalised = (images.movedim(-1, 1).float() / 255 - self.mean) / self.deviation
        canvas = pad(normalised, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        raw = self.network.embed(canvas)
        logits = interpolate(self.network.classify(raw), size=canvas.shape[-2:], mode="bilinear")
        return logits[..., :height, :width].softmax(dim=1), unit(raw.movedim(1, -1)).movedim(-1, 1)


def write(network: Segmenter, path: Path) -> float:
    """Write the graph of a network in evaluation mode, on the CPU, and compare the two by ONNX Runtime.

    Input `images` [B, H, W, 3] uint8 RGB with any B, H and W; outputs as `WholeImages.forward`. Returns the
    largest difference that was seen. Raises RunError without the extra `onnx`, for a network that has no such
    graph, and for outputs that differ by more than TOLERANCE.
    """
    onnxruntime = _installed()
    module = WholeImages(network).eval()
    _export(module, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = max(_difference(module, session.run, size) for size in SIZES)
    if not difference <= TOLERANCE:
        problem = f"its outputs differ from the network's by {difference:.2g}, more than {TOLERANCE:g}"
        raise RunError(f"{path}: {problem}", None, "export it as safetensors")
    return difference


def _export(module: WholeImages, path: Path) -> None:
    example = torch.from_numpy(_pictures(_EXAMPLE))
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in range(3)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (example,),
                path,
                input_names=[INPUT],
                output_names=OUTPUTS,
                dynamic_shapes=(sizes,),
                external_data=False,
                verbose=False,
            )
    except Exception as problem:  # whatever torch's exporter meets in a network
        what = "the network has no ONNX graph for images of any size"
        raise RunError(what, str(problem).splitlines()[0], "export it as safetensors") from problem


def _difference(module: WholeImages, run: Callable[..., Any], size: tuple[int, int, int]) -> float:
    pictures = _pictures(size)
    with torch.inference_mode():
        expected = module(torch.from_numpy(pictures))
    outputs = run(list(OUTPUTS), {INPUT: pictures})
    pairs = zip(outputs, expected, strict=True)
    return max(float(np.abs(ours - theirs.numpy()).max()) for ours, theirs in pairs)


def _pictures(size: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def _normalisation(network: Segmenter) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return network.normalisation.mean, network.normalisation.deviation


def _installed() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as problem:
        raise RunError("ONNX needs packages that are not here", problem.name, _EXTRA) from problem
    return onnxruntime
