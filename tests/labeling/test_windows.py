"""Windows cover, overlap and blend without a seam."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.labeling.windows import blended, windows

LENGTHS = st.integers(1, 60)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 30))
def test_windows_cover_an_axis_and_share_what_is_asked_for(length, side, overlap):
    found = windows(length, side, overlap)
    assert found[0].start == 0 and found[-1].stop == length
    assert all(each.stop - each.start == min(side, length) for each in found)
    for one, other in pairwise(found):
        assert one.start < other.start
        assert one.stop - other.start >= min(overlap, side // 2)


@given(LENGTHS, LENGTHS, st.integers(2, 20), st.integers(0, 9))
def test_what_does_not_depend_on_the_window_comes_out_as_it_is(height, width, side, overlap):
    maps = torch.arange(height * width, dtype=torch.float64).view(1, height, width)
    found = blended((height, width), side, overlap, lambda rows, columns: maps[:, rows, columns])
    torch.testing.assert_close(found, maps)


def test_from_one_window_to_the_next_values_change_step_by_step():
    """Every window says its own number; over an overlap of 8 no step is above a third."""
    number = iter(range(9))
    found = blended((40, 1), 16, 8, lambda *_: torch.full((16, 1), float(next(number))))
    assert found[0, 0] == 0 and found.max() == found[-1, 0]
    assert found.diff(dim=0).abs().max() <= 1 / 3
