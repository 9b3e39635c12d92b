"""The generated sample."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import pytest

from spml_dist.data.generated.sample import generated
from spml_dist.data.generated.scenes import BACKGROUND, CLASSES
from spml_dist.errors import DataError

SCENES = list(generated("train", 60, seed=5))


def test_there_are_at_least_eight_classes_beside_the_ground_and_all_occur():
    assert len(set(CLASSES)) - 1 >= 8 and CLASSES[BACKGROUND] == "ground"
    assert set().union(*(scene.tags for scene in SCENES)) == set(range(1, len(CLASSES)))


def test_at_least_30_percent_of_the_pairs_share_no_tag():
    pairs = [not set(one.tags) & set(other.tags) for one, other in combinations(SCENES, 2)]
    assert np.mean(pairs) >= 0.3


def test_classes_occur_together_in_patterns():
    together = np.zeros((len(CLASSES),) * 2, int)
    for scene in SCENES:
        together[np.ix_(scene.tags, scene.tags)] += 1
    often = together[1:, 1:] / np.diag(together)[1:]
    # Every class has a companion in at least a third of its images and a stranger in at most a tenth.
    assert (np.sort(often, 0)[-2] > 1 / 3).all() and (often.min(0) <= 0.1).all()


def test_scribbles_are_right_reach_every_class_and_cover_3_to_5_percent():
    for scene in SCENES:
        labelled = scene.semantic != 254
        assert np.array_equal(scene.semantic[labelled], scene.mask[labelled])
        assert set(np.unique(scene.semantic[labelled])) == set(np.unique(scene.mask)) == {0, *scene.tags}
    shares = [(scene.semantic != 254).mean() for scene in SCENES]
    assert min(shares) > 0.03 and max(shares) < 0.05


def test_a_scene_depends_on_seed_split_and_index_alone():
    def image(split, images, index, seed):
        return next(islice(generated(split, images, seed=seed, size=64), index, None)).image

    reference = image("train", 3, 2, 1)
    assert np.array_equal(reference, image("train", 9, 2, 1))
    for other in (image("val", 3, 2, 1), image("train", 3, 1, 1), image("train", 3, 2, 2)):
        assert not np.array_equal(reference, other)


@pytest.mark.parametrize("size", [64, 97, 224])
def test_scenes_come_in_other_sizes(size):
    (scene,) = generated("val", 1, size=size)
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert {scene.semantic.shape, scene.regions.shape, scene.mask.shape} == {(size, size)}


def test_colour_alone_does_not_tell_the_class():
    """The nearest mean colour, fitted to the very pixels that it is asked about, errs on most of them."""
    pixels = np.concatenate([scene.image[scene.mask > 0] for scene in SCENES]).astype(float)
    labels = np.concatenate([scene.mask[scene.mask > 0] for scene in SCENES])
    means = np.stack([pixels[labels == label].mean(0) for label in range(1, len(CLASSES))])
    nearest = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1) + 1
    assert np.mean(nearest == labels) < 0.5


@pytest.mark.parametrize("asked", [{"images": 0}, {"images": 1, "size": 63}, {"images": 1, "seed": -1}])
def test_what_cannot_be_drawn_is_refused(asked):
    with pytest.raises(DataError, match="generated sample"):
        generated("train", **asked)
