"""What passes a filter."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.errors import ConfigError
from spml_dist.retrieval.filters import Filter, parsed, passing
from spml_dist.retrieval.rows import tag_bits, tags_of

CLASSES = ("road", "bare soil", "water", "rock and ice", *(f"c{number}" for number in range(20)))
TAGS = [(), (0,), (1,), (0, 1), (0, 2), (3, 23)]
BITS = np.array([list(tag_bits(tags, len(CLASSES))) for tags in TAGS], np.uint8)


def test_tags_come_back_from_their_bits():
    assert [tags_of(tag_bits(tags, len(CLASSES))) for tags in TAGS] == TAGS


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("road", [1, 3, 4]),
        ("bare soil", [2, 3]),
        ('"rock and ice"', [5]),
        ("c19", [5]),
        ("road and bare soil", [3]),
        ("road and not bare soil", [1, 4]),
        ("not road and not bare soil", [0, 5]),
        ("water or bare soil and road", [3, 4]),
        ("(water or bare soil) and not (road and water)", [2, 3]),
        ("NOT (road OR bare soil)", [0, 5]),
        ("not not road", [1, 3, 4]),
    ],
)
def test_expressions_over_tags(expression, rows):
    assert np.flatnonzero(parsed(expression, CLASSES)(BITS)).tolist() == rows


@pytest.mark.parametrize(
    "expression", ["", "and", "road and", "road or or water", "(road", "road)", "sea", "()"]
)
def test_what_cannot_be_read_is_refused(expression):
    with pytest.raises(ConfigError, match="--tags"):
        parsed(expression, CLASSES)


def test_everything_that_is_set_has_to_hold():
    label, area = np.array([0, 1, -1, 0, 2, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    known = np.array([1, 1, 1, 0, 1, 1])
    everything = label, area, BITS, known

    def rows(**wanted) -> list[int]:
        return np.flatnonzero(passing(Filter(**wanted), CLASSES, *everything)).tolist()

    assert rows() == list(range(6)) and Filter().everything
    assert rows(classes=("road", "water")) == [0, 3, 4, 5]
    assert rows(tags="not water") == [0, 1, 2, 5], "unknown tags never pass"
    assert rows(least_area=0.2, most_area=0.5) == [1, 2, 3, 4]
    assert rows(classes=("road",), tags="not water", least_area=0.5) == [5]
