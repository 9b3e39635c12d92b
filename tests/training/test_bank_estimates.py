"""What a step estimates from drawn rows of the bank comes closer to the exact loss the more are drawn."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.estimates import CLASSES, RELATIONS, Estimate, clustered, estimates, met

SAMPLED, ALL = (16, 128, 512), 2000
ROWS = 9 * 128
"""what the bank remembers: ten steps but for the one that is made"""
ROUNDING = 1e-5
"""by which nothing is told from 0"""


@pytest.fixture(scope="module")
def found() -> list[Estimate]:
    return estimates(met(clustered(steps=10), CLASSES), (*SAMPLED, ALL), draws=20)


def of(found: list[Estimate], relation: str, way: str) -> list[Estimate]:
    """By the number of rows drawn."""
    return [each for each in found if (each.relation, each.way) == (relation, way)]


@pytest.mark.parametrize("relation", RELATIONS)
class TestEachRelation:
    def test_the_bias_of_the_loss_shrinks_as_more_rows_are_drawn(self, found, relation):
        biases = [abs(each.loss_bias) for each in of(found, relation, "nearest+sampled")]
        assert all(more < max(few / 1.5, ROUNDING) for few, more in pairwise(biases))

    def test_so_does_the_variance_of_the_gradient(self, found, relation):
        deviations = [each.gradient_sd for each in of(found, relation, "nearest+sampled")]
        assert all(more < max(few / 1.2, ROUNDING) for few, more in pairwise(deviations))

    @pytest.mark.parametrize("way", ["nearest+sampled", "drawn"])
    def test_with_all_rows_drawn_both_vanish(self, found, relation, way):
        all_drawn = of(found, relation, way)[-1]
        assert all_drawn.candidates == ROWS
        for name in ("loss_bias", "loss_sd", "gradient_bias", "gradient_sd"):
            assert abs(getattr(all_drawn, name)) < ROUNDING

    def test_the_last_steps_and_the_nearest_alone_are_further_off(self, found, relation):
        many = of(found, relation, "nearest+sampled")[len(SAMPLED) - 1]
        for way in ("recent", "nearest"):
            (alone,) = of(found, relation, way)
            assert abs(alone.loss_bias) > 2 * abs(many.loss_bias) + 2 * many.loss_error
            assert alone.gradient_bias > 2 * many.gradient_bias

    def test_numbers_of_candidates_are_what_is_said(self, found, relation):
        (recent,), (nearest,) = of(found, relation, "recent"), of(found, relation, "nearest")
        assert (recent.candidates, nearest.candidates) == (2 * 128, 512)
        for way in ("nearest+sampled", "drawn"):
            some = [each.candidates - nearest.candidates for each in of(found, relation, way)]
            assert some[:-1] == pytest.approx(SAMPLED, rel=0.1, abs=10)
