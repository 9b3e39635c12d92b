"""Scores that walk over an image: along colours, in windows, on images of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spml_dist.config.labeling_models import CamConfig, LabelingConfig
from spml_dist.labeling import grid_scores, random_walk
from spml_dist.labeling.cams import CamSeeds
from spml_dist.labeling.walks import CamWalk, SoftmaxWalk, look, spread
from spml_dist.records import ANNOTATED, IGNORED, UNLABELLED
from tests.inference.conftest import stripes

SETTINGS = LabelingConfig(stride=4)


def bare(**fields):
    """An image of three stripes of which no pixel is annotated."""
    one = stripes(0)
    return replace(one, semantic=np.full_like(one.semantic, UNLABELLED), kinds=("tags",), **fields)


class TestSoftmax:
    def test_all_pixels_get_the_class_of_their_colour_and_annotated_ones_are_sure(self, colours):
        drawn = stripes(0)
        found = SoftmaxWalk(colours, SETTINGS)(drawn)
        assert (found.semantic == found.mask).mean() > 0.9 and found.kinds == ("walk",)
        annotated = drawn.semantic != UNLABELLED
        np.testing.assert_array_equal(found.confidence == ANNOTATED, annotated)
        assert (found.confidence[~annotated] > 0).all()

    def test_a_class_that_the_tags_leave_out_is_nowhere(self, colours):
        found = SoftmaxWalk(colours, SETTINGS)(bare(tags=(0, 2)))
        assert set(np.unique(found.semantic)) == {0, 2}

    def test_an_image_of_which_nothing_is_known_stays_as_it_is(self, colours):
        nothing = bare(tags=None)
        assert SoftmaxWalk(colours, SETTINGS)(nothing) is nothing

    def test_what_is_less_sure_than_asked_for_stays_unlabelled(self, colours):
        sure = SETTINGS.model_copy(update={"min_confidence": 0.6})
        found = SoftmaxWalk(colours, sure)(bare())
        assert 0 < (found.semantic == UNLABELLED).mean() < 1
        assert (found.confidence[found.semantic != UNLABELLED] >= 1 + 0.6 * 253 - 1).all()

    @pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (5, 3)])
    def test_images_smaller_than_a_cell_are_labelled_too(self, colours, size):
        one = replace(stripes(0, *size), semantic=np.full(size, UNLABELLED, np.uint8))
        assert (SoftmaxWalk(colours, SETTINGS)(one).semantic < 3).all()

    def test_ignored_pixels_stay_ignored(self, colours):
        holes = bare()
        holes.semantic[:, :9] = IGNORED
        found = SoftmaxWalk(colours, SETTINGS)(holes)
        np.testing.assert_array_equal(found.semantic == IGNORED, holes.semantic == IGNORED)

    def test_where_classes_change_places_in_a_mirror_they_change_back(self, colours):
        """A network that calls red green and green red in mirrored images, as it does with hands."""
        plain = look(colours, stripes(0).image, SETTINGS.model_copy(update={"mirror": False}))
        swapped = replace(colours, mirror_swaps=((0, 1),)).unmirrored()
        np.testing.assert_array_equal(swapped, [1, 0, 2])
        both = grid_scores.grid_scores(colours(), stripes(0).image, 3, 4, unmirrored=swapped)
        expected = (plain.probability + plain.probability[swapped]) / 2
        torch.testing.assert_close(both.probability, expected, atol=5e-2, rtol=0)
        assert not torch.allclose(both.probability, plain.probability, atol=5e-2)


class TestCam:
    @pytest.fixture
    def maps(self, monkeypatch) -> CamSeeds:
        """Strong in the middle three quarters of each class's stripe."""

        def activations(self, image, classes):
            middle = np.zeros((3, *image.shape[:2]), np.float32)
            rows = slice(image.shape[0] // 8, -image.shape[0] // 8)
            for label in classes:
                middle[label, rows] = stripes(0).mask[rows] == label
            return middle[list(classes)]

        monkeypatch.setattr(CamSeeds, "activations", activations)
        return CamSeeds(Path("cam"), "", CamConfig(), "cpu")

    def test_maps_of_the_tags_spread_over_their_colours(self, colours, maps):
        found = CamWalk(colours, SETTINGS, maps)(bare())
        assert (found.semantic == found.mask).mean() > 0.9 and found.kinds == ("tags", "cam-walk")

    def test_background_is_what_no_map_claims(self, colours, maps):
        found = CamWalk(replace(colours, background=1), SETTINGS, maps)(bare(tags=(0, 2)))
        assert (found.semantic == found.mask).mean() > 0.9

    def test_annotated_images_and_images_without_a_located_tag_stay_as_they_are(
        self, colours, maps, monkeypatch
    ):
        label = CamWalk(colours, SETTINGS, maps)
        drawn = stripes(0)
        assert label(drawn) is drawn
        monkeypatch.setattr(CamSeeds, "activations", lambda self, image, classes: np.zeros((3, 45, 61)))
        tagged = bare()
        assert label(tagged) is tagged


class TestWindows:
    def smooth(self, h: int, w: int):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(1, 6, 4, 4, generator=generator)
        return random_walk.resize(coarse, (h, w)), torch.rand(3, h, w, generator=generator).softmax(dim=0)

    def test_without_windows_it_is_the_plain_walk(self):
        embedding, seeds = self.smooth(12, 10)
        step = random_walk.transition(random_walk.affinity(embedding, (12, 10)))
        torch.testing.assert_close(spread(seeds, embedding, SETTINGS), random_walk.walk(seeds, step))

    def test_in_windows_shares_still_sum_to_one(self):
        embedding, seeds = self.smooth(30, 40)
        found = spread(seeds, embedding, SETTINGS.model_copy(update={"window": 12, "overlap": 4}))
        torch.testing.assert_close(found.sum(dim=0), torch.ones(30, 40), atol=1e-5, rtol=0)

    def test_there_is_no_step_where_windows_meet(self):
        """Windows of 12 begin and end in many of 40 columns; steps there are as elsewhere."""
        embedding, seeds = self.smooth(12, 40)
        found = spread(seeds, embedding, SETTINGS.model_copy(update={"window": 12, "overlap": 6}))
        steps = found.diff(dim=2).abs().amax(dim=(0, 1))
        whole = spread(seeds, embedding, SETTINGS).diff(dim=2).abs().amax(dim=(0, 1))
        assert steps.max() < 1.5 * max(whole.max(), steps.median())

    def test_a_large_image_is_looked_at_in_tiles_that_agree_with_the_whole(self, colours, monkeypatch):
        image = stripes(0, 90, 130).image
        whole = look(colours, image, SETTINGS)
        monkeypatch.setattr(grid_scores, "TILE", 48)
        monkeypatch.setattr(grid_scores, "MARGIN", 16)
        tiled = look(colours, image, SETTINGS)
        assert tiled.embedding.shape == whole.embedding.shape == (2, 3, 22, 32)
        same = tiled.probability.argmax(dim=0) == whole.probability.argmax(dim=0)
        assert same.float().mean() > 0.97
