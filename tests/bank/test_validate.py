"""What the bank refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch

from spml_dist.bank.rows import bitset
from spml_dist.bank.validate import refusal
from spml_dist.records import BankRows
from tests.bank.builders import CLASSES, rows_of

KEYS = ["city/a", "city/b", "city/c"]


def rows(classes: int = CLASSES) -> BankRows:
    return rows_of(KEYS, [3, 4, 2], classes=classes)


def asked(some: BankRows, classes: int = CLASSES, largest: int = 4) -> str | None:
    answer = refusal(some, classes, largest, 7, KEYS)
    return None if answer is None else str(answer)


@pytest.mark.parametrize("classes", [1, 5, 62, 63, 64, 126, 127])
def test_rows_as_they_are_made_are_welcome(classes):
    some = rows(classes)
    some.tags[:] = bitset(torch.ones(len(some), classes, dtype=torch.bool))
    some.label[:] = torch.arange(len(some)).remainder(classes + 1) - 1
    assert asked(some, classes) is None


def test_nobody_is_welcome_too():
    assert asked(rows_of([], [])) is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_a_vector_that_is_not_finite(value, storage):
    some = rows_of(KEYS, [3, 4, 2], storage=storage)
    some.vector[5, 2] = value
    message = asked(some)
    assert message.startswith("image city/b: segment 2 has an embedding that is not finite")
    assert "the bank took nothing; lower optimizer.lr" in message


@pytest.mark.parametrize("label", [-2, CLASSES, 254])
def test_a_class_that_there_is_not(label):
    some = rows()
    some.label[7] = label
    assert asked(some).startswith("image city/c: segment 0 has a class outside -1..4")


@pytest.mark.parametrize(
    ("classes", "word", "bit"),
    [(5, 0, 5), (5, 0, 62), (5, 0, 63), (63, 0, 63), (64, 1, 1), (64, 0, 63), (64, 1, 63), (150, 1, 63)],
)
def test_tags_that_there_are_not(classes, word, bit):
    some = rows(classes)
    some.tags[2, word] |= -(2**63) if bit == 63 else 2**bit
    assert asked(some, classes).startswith(f"image city/a: segment 2 has tags outside 0..{classes - 1}")


def test_an_image_that_no_part_can_hold():
    assert asked(rows(), largest=4) is None
    assert "4 segments" in asked(rows(), largest=3) and "7 parts holds 3 rows" in asked(rows(), largest=3)
    assert "bank.capacity to 28" in asked(rows(), largest=3)


def test_an_image_that_is_twice_in_a_batch_needs_room_once():
    """At the seam of two epochs; the later one replaces the earlier."""
    twice = rows_of(["city/a", "city/b", "city/a"], [3, 1, 2])
    assert asked(twice, largest=3) is None
    assert "3 segments" in asked(twice, largest=2)
