"""Cross-entropy at the labelled pixels is that of the whole resized map."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from spml_dist.method import cross_entropy as module
from spml_dist.method.cross_entropy import bilinear, cross_entropy
from spml_dist.records import IGNORED, UNLABELLED

CLASSES = 4


def maps(seed: int, images: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, CLASSES, height, width, generator=generator, dtype=torch.float64)


def labels(seed: int, images: int, height: int, width: int, share: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, CLASSES, (images, height, width), generator=generator)
    labelled = torch.rand(classes.shape, generator=generator) < share
    return torch.where(labelled, classes, UNLABELLED).to(torch.uint8)


def whole(logits: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
    full = functional.interpolate(logits, size=semantic.shape[1:], mode="bilinear", align_corners=False)
    target = torch.where(semantic < CLASSES, semantic.long(), -1)
    return functional.cross_entropy(full, target, ignore_index=-1, reduction="sum")


sides = st.integers(1, 9)


@given(st.integers(0, 99), sides, sides, sides, sides, st.sampled_from([0.0, 0.2, 1.0]), st.booleans())
def test_values_and_gradients_whatever_the_sizes(seed, h, w, height, width, share, sparse):
    ours, theirs = (maps(seed, 2, h, w).requires_grad_() for _ in range(2))
    semantic = labels(seed, 2, height, width, share)
    with mock.patch.object(module, "SPARSE", 1 if sparse else -1):
        one = cross_entropy(ours, semantic)
    other = whole(theirs, semantic)
    one.backward(), other.backward()
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 5), (13, 40), (3, 2)])
def test_a_pixel_has_the_value_of_the_resized_map(size):
    values = maps(1, 2, 7, 5)
    full = functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
    image, y, x = torch.ones(2, *size).nonzero(as_tuple=True)
    torch.testing.assert_close(bilinear(values, image, y, x, size), full.movedim(1, -1).reshape(-1, CLASSES))


def test_ignored_and_unlabelled_pixels_do_not_count():
    semantic = torch.tensor([[[IGNORED, UNLABELLED], [1, UNLABELLED]]], dtype=torch.uint8)
    logits = maps(2, 1, 2, 2)
    expected = -logits[0, :, 1, 0].log_softmax(dim=0)[1]
    for sparse in (-1, 1):
        with mock.patch.object(module, "SPARSE", sparse):
            torch.testing.assert_close(cross_entropy(logits, semantic), expected)
