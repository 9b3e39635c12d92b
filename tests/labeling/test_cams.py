"""Seeds against the written rule, pixel by pixel; maps of mirrored images; a pack with seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spml_dist.config import load
from spml_dist.config.labeling_models import CamConfig
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack.pack import Rejection
from spml_dist.errors import RunError
from spml_dist.labeling import cams
from spml_dist.labeling.cam_seeds import box_seeds, mapped_classes, seeds, tag_seeds
from spml_dist.labeling.label_quality import measure
from spml_dist.labeling.labeler import with_labels
from spml_dist.labeling.labelled_parts import LabelledParts, PackParts
from spml_dist.records import IGNORED, IMAGENET, UNLABELLED, Sample
from tests.labeling import builders

SMALL = Path(__file__).parents[1] / "small.yaml"
CONFIG = load(SMALL).cam
SHAPE = (5, 7)
BACKGROUND = 0


def configured(**changes) -> CamConfig:
    return CONFIG.model_copy(update=changes)


def sample(**fields) -> Sample:
    return builders.sample(SHAPE, **fields)


def slow_tag_seeds(maps, classes, background, cam) -> np.ndarray:
    found = np.full(maps.shape[1:], UNLABELLED, np.uint8)
    located = [bool(np.isfinite(m).all() and (m > 0).any()) for m in maps]
    for y, x in np.ndindex(found.shape):
        share = [
            m[y, x] / m.max() if message else np.float32(0) for m, message in zip(maps, located, strict=True)
        ]
        strongest = max(share, default=np.float32(0))
        options = []
        if strongest >= cam.foreground and classes:
            options.append((strongest, 1, classes[share.index(strongest)]))
        ground = (1 - strongest) ** cam.alpha
        if background is not None and all(located) and ground >= cam.background:
            options.append((ground, 0, background))
        if options:
            found[y, x] = max(options, key=lambda option: option[:2])[2]
    return found


def slow_box_seeds(maps, boxes, background, cam) -> np.ndarray:
    found = np.full(SHAPE, UNLABELLED, np.uint8)
    for y, x in np.ndindex(SHAPE):
        best = None
        for number, (label, x0, y0, x1, y1) in enumerate(boxes):
            if not (y0 <= y < y1 and x0 <= x < x1):
                continue
            inside = maps[label][int(y0) : int(y1), int(x0) : int(x1)]
            span = inside.max() - inside.min()
            value = (maps[label][y, x] - inside.min()) / span if span > 0 else np.float32(0)
            rank = (value, -(x1 - x0) * (y1 - y0), -number)
            if best is None or rank > best[0]:
                best = rank, label if value >= cam.box else UNLABELLED
        if best is not None:
            found[y, x] = best[1]
        elif background is not None:
            found[y, x] = background
    return found


def random_maps(seed: int, count: int) -> np.ndarray:
    """A few values only, so that there are ties; some maps are zero or flat."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 8, (count, *SHAPE)).astype(np.float32)
    maps[rng.random(count) < 0.2] = rng.integers(0, 2)
    return maps


THRESHOLDS = st.sampled_from([0.1, 0.125, 0.2, 0.3, 0.5, 0.75, 1.0])


class TestTags:
    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from([0, None]), THRESHOLDS, THRESHOLDS)
    def test_every_pixel_follows_the_rule(self, seed, count, background, foreground, ground):
        maps, classes = random_maps(seed, count), tuple(range(1, count + 1))
        if seed % 5 == 0 and count:
            maps[seed % count, 2, 3] = np.nan if seed % 2 else np.inf
        cam = configured(foreground=foreground, background=ground, alpha=2 if seed % 2 else 6)
        expected = slow_tag_seeds(maps, classes, background, cam)
        np.testing.assert_array_equal(tag_seeds(maps, classes, background, cam), expected)

    def test_the_paper_s_single_threshold_leaves_nothing_unlabelled_and_the_shipped_ones_do(self):
        ramp = np.linspace(0, 1, 101, dtype=np.float32)[None, None]
        paper = tag_seeds(ramp, (1,), BACKGROUND, configured(foreground=0.2, background=0.2))
        ours = tag_seeds(ramp, (1,), BACKGROUND, CONFIG)
        assert set(paper[0]) == {0, 1}
        assert set(ours[0]) == {0, 1, UNLABELLED}

    def test_as_strong_as_the_background_a_class_wins(self):
        halves = np.float32([[[1, 0.5, 0.25]]])
        found = tag_seeds(halves, (1,), BACKGROUND, configured(foreground=0.25, background=0.25, alpha=1))
        assert found.tolist() == [[1, 1, BACKGROUND]]

    def test_an_image_known_to_show_nothing_is_background_if_there_is_one(self):
        none = np.zeros((0, *SHAPE), np.float32)
        assert (tag_seeds(none, (), BACKGROUND, CONFIG) == BACKGROUND).all()
        assert (tag_seeds(none, (), None, CONFIG) == UNLABELLED).all()

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    def test_where_a_tag_is_not_found_nothing_is_background_and_the_others_stay(self, value):
        found = np.linspace(0, 1, 35, dtype=np.float32).reshape(SHAPE)
        alone = tag_seeds(found[None], (1,), BACKGROUND, CONFIG)
        both = tag_seeds(np.stack([found, np.full(SHAPE, value, np.float32)]), (1, 2), BACKGROUND, CONFIG)
        assert set(np.unique(alone)) == {BACKGROUND, 1, UNLABELLED}
        np.testing.assert_array_equal(both, np.where(alone == BACKGROUND, UNLABELLED, alone))


class TestBoxes:
    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(0, 10**6),
        st.sampled_from([0, None]),
        THRESHOLDS,
        st.lists(
            st.tuples(
                st.integers(1, 2), st.integers(0, 5), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)
            ),
            max_size=4,
        ),
    )
    def test_every_pixel_follows_the_rule(self, seed, background, threshold, drawn):
        maps = dict(zip((1, 2), random_maps(seed, 2), strict=True))
        boxes = [
            (label, float(x), float(y), float(min(x + w, SHAPE[1])), float(min(y + h, SHAPE[0])))
            for label, x, y, w, h in drawn
        ]
        cam = configured(box=threshold)
        expected = slow_box_seeds(maps, boxes, background, cam)
        np.testing.assert_array_equal(box_seeds(maps, boxes, SHAPE, background, cam), expected)

    @pytest.mark.parametrize("labels", [(1, 2), (2, 1)])
    def test_of_boxes_that_are_equally_strong_and_large_the_earlier_wins(self, labels):
        ramp = np.linspace(0, 1, 35, dtype=np.float32).reshape(SHAPE)
        boxes = [(label, 0.0, 0.0, 7.0, 5.0) for label in labels]
        found = box_seeds({1: ramp, 2: ramp}, boxes, SHAPE, BACKGROUND, CONFIG)
        assert set(np.unique(found)) == {labels[0], UNLABELLED}


class TestWhatIsLabelled:
    def test_boxes_come_before_tags(self):
        boxes = ((3, 0.0, 0.0, 2.0, 2.0), (1, 1.0, 1.0, 3.0, 3.0), (3, 2.0, 2.0, 4.0, 4.0))
        assert mapped_classes(sample(tags=(1, 2, 3), boxes=boxes)) == (1, 3)
        assert mapped_classes(sample(tags=(2, 1))) == (1, 2)

    def test_without_boxes_or_tags_or_beside_annotated_pixels_nothing_is(self):
        line = np.full(SHAPE, UNLABELLED, np.uint8)
        line[2] = 1
        assert mapped_classes(sample()) is None
        assert mapped_classes(sample(tags=(1,), semantic=line)) is None
        assert mapped_classes(sample(tags=(1,), semantic=np.full(SHAPE, IGNORED, np.uint8))) == (1,)

    def test_annotated_and_ignored_pixels_never_change(self):
        drawn = np.full(SHAPE, UNLABELLED, np.uint8)
        drawn[0], drawn[1] = 2, IGNORED
        one = sample(semantic=drawn, boxes=((1, 0.0, 0.0, 7.0, 5.0),))
        found = seeds(one, random_maps(1, 1), BACKGROUND, CONFIG)
        np.testing.assert_array_equal(found[:2], drawn[:2])
        assert (found[2:] == 1).any()


class Colours(nn.Module):
    """Class 1 is where the image is red, class 2 where it is blue, of cells of 4 pixels a side."""

    stride = 4
    normalisation = IMAGENET

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 0, 0], [1, -1, 0], [0, -1, 1]]))

    def activate(self, images: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kc->bkhw", nn.functional.avg_pool2d(images, 4), self.weight)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)


class TestActivations:
    def test_a_flipped_image_gives_flipped_maps(self, image):
        ours = cams.activations(Colours(), image, (1, 2), CONFIG)
        theirs = cams.activations(Colours(), image[:, ::-1], (1, 2), CONFIG)
        assert ours.shape == (2, 21, 34) and (ours >= 0).all() and (ours > 0).any(axis=(1, 2)).all()
        np.testing.assert_allclose(theirs[..., ::-1], ours, atol=1e-4)

    def test_scales_and_mirror_images_add_up(self, image):
        single = [
            cams.activations(Colours(), image, (1,), configured(scales=(scale,), mirror=False))
            for scale in (0.5, 1.0)
        ]
        both = cams.activations(Colours(), image, (1,), configured(scales=(0.5, 1.0), mirror=False))
        np.testing.assert_allclose(both, sum(single), rtol=1e-5)
        there = cams.activations(Colours(), image[:, ::-1], (1,), configured(scales=(1.0,), mirror=False))
        mirrored = cams.activations(Colours(), image, (1,), configured(scales=(1.0,), mirror=True))
        np.testing.assert_allclose(mirrored, single[1] + there[..., ::-1], atol=1e-5)

    def test_inside_a_box_what_speaks_against_a_class_counts_too(self, image):
        green = image.copy()
        green[..., 1], green[..., 0] = 255, image[..., 0] // 2
        assert not cams.activations(Colours(), green, (1,), CONFIG).any()
        boxed = sample(
            image=green, semantic=np.full((21, 34), UNLABELLED, np.uint8), boxes=((1, 4.0, 4.0, 20.0, 18.0),)
        )
        found = cams.with_seeds(Colours(), boxed, None, CONFIG).semantic
        inside = found[4:18, 4:20]
        assert set(np.unique(inside)) == {1, UNLABELLED}
        assert boxed.image[4:18, 4:20, 0][inside == 1].mean() > boxed.image[4:18, 4:20, 0][inside != 1].mean()

    def test_classes_come_in_the_order_asked_for(self, image):
        one, two = (cams.activations(Colours(), image, classes, CONFIG) for classes in ((1, 2), (2, 1)))
        np.testing.assert_array_equal(one, two[::-1])

    def test_a_large_image_is_looked_at_in_small(self):
        sizes, network = [], Colours()
        look = network.activate
        network.activate = lambda images: sizes.append(tuple(images.shape[2:])) or look(images)
        large = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
        maps = cams.activations(network, large, (1,), configured(scales=(1.0,), longer_side=90))
        assert maps.shape == (1, 300, 900)
        assert sizes == [(32, 88)]

    @pytest.mark.parametrize("longer_side", [None, 400])
    def test_no_view_has_more_pixels_than_fit_into_memory(self, monkeypatch, longer_side):
        monkeypatch.setattr(cams, "MOST_PIXELS", 10_000)
        sizes, network = [], Colours()
        look = network.activate
        network.activate = lambda images: sizes.append(tuple(images.shape[2:])) or look(images)
        large = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
        given = configured(scales=(0.5, 1.0, 2.0), longer_side=longer_side)
        assert cams.activations(network, large, (1,), given).shape == (1, 300, 900)
        assert sizes == [(28, 88), (56, 172), (56, 172)]


def halves(number: int) -> Sample:
    """Red at the left, blue at the right, grey between."""
    mask = np.repeat([[1] * 12 + [0] * 12 + [2] * 12], 24, axis=0).astype(np.uint8)
    colours = np.array([(124, 116, 104), (250, 20, 104), (124, 20, 250)], np.uint8)
    return Sample(
        f"halves-{number}",
        colours[mask],
        np.full(mask.shape, UNLABELLED, np.uint8),
        mask.astype(np.uint16),
        (1, 2),
        mask,
        ("tags",),
    )


class TestPacks:
    @pytest.fixture
    def parts(self, packed, monkeypatch) -> LabelledParts:
        folder = packed("tags", [halves(0), halves(1)])
        monkeypatch.setattr(cams, "_network", lambda *_: (Colours(), BACKGROUND))
        label = cams.CamSeeds(Path("export"), "", CONFIG, "cpu")
        return LabelledParts(PackParts(str(folder), read_manifest(folder)), label)

    def test_an_image_that_does_not_decode_is_rejected_and_the_others_are_labelled(self, parts, packed):
        tar = Path(parts.parts.shards) / parts.parts.manifest.shards[0].url
        content = tar.read_bytes()
        tar.write_bytes(content.replace(b"\xff\xd8\xff", b"\0\0\0", 1))
        first, second = parts(0)
        assert isinstance(first, Rejection) and first.image_id == "halves-0"
        assert second[0].key == "halves-1" and "cam" in second[0].kinds

    def test_a_tar_that_cannot_be_read_leaves_those_that_are_finished(self, parts):
        tar = Path(parts.parts.shards) / parts.parts.manifest.shards[0].url
        tar.write_bytes(tar.read_bytes()[:-1024])
        with pytest.raises(RunError, match=r"tags-000000\.tar: not the \d+ bytes.*the same command goes on"):
            next(parts(0))


class TestSamples:
    def test_seeds_lie_where_the_classes_are(self):
        found = cams.with_seeds(Colours(), halves(0), BACKGROUND, CONFIG)
        mask, labels = found.mask, found.semantic
        message = labels != UNLABELLED
        assert (labels[message] == mask[message]).mean() > 0.9 and set(np.unique(labels)) >= {0, 1, 2}
        assert found.kinds == ("tags", "cam")

    def test_a_sample_that_gets_nothing_stays_as_it_is(self):
        plain = sample(kinds=("tags",))
        assert cams.with_seeds(Colours(), plain, BACKGROUND, CONFIG) is plain

    def test_made_twice_seeds_are_the_same(self):
        once = cams.with_seeds(Colours(), halves(0), BACKGROUND, CONFIG)
        twice = cams.with_seeds(Colours(), once, BACKGROUND, CONFIG)
        assert np.array_equal(once.semantic, twice.semantic) and once.kinds == twice.kinds
        assert np.array_equal(once.confidence, twice.confidence)

    def test_what_another_labeler_has_labelled_is_replaced(self):
        weak = halves(0)
        walked = with_labels(weak, np.ones_like(weak.semantic), np.full(weak.semantic.shape, 0.5), "walk")
        ours, theirs = (cams.with_seeds(Colours(), each, BACKGROUND, CONFIG) for each in (walked, weak))
        assert np.array_equal(ours.semantic, theirs.semantic)
        assert np.array_equal(ours.confidence, theirs.confidence) and ours.kinds == ("tags", "walk", "cam")

    def test_pixels_that_are_not_sure_enough_stay_unlabelled(self):
        everywhere = cams.with_seeds(Colours(), halves(0), BACKGROUND, CONFIG)
        found = cams.with_seeds(Colours(), halves(0), BACKGROUND, CONFIG, least=0.9)
        unsure = (everywhere.confidence > 0) & (everywhere.confidence < 0.89 * 254)
        assert unsure.any() and (found.semantic[unsure] == UNLABELLED).all()
        assert (found.semantic != UNLABELLED).any()

    def test_quality_is_counted_over_the_images_that_have_seeds(self, packed):
        part = np.full((24, 36), UNLABELLED, np.uint8)
        part[:12, :12], part[:12, 24:30] = 1, 1
        with_seeds = replace(halves(0), semantic=part, kinds=("cam",))
        result = measure(packed("seeds", [with_seeds, halves(1)]), "cam", progress=False)
        assert (result["images"], result["images_labelled"], result["images_measured"]) == (2, 1, 1)
        red = result["classes"]["green"]  # the second class of the pack
        assert red["labelled"] == pytest.approx(216 / 864)
        assert red["precision"] == pytest.approx(144 / 216)
        assert red["iou"] == pytest.approx(144 / (288 + 216 - 144))
        assert result["classes"]["red"]["precision"] is None and result["classes"]["blue"]["iou"] == 0
        assert result["all"]["precision"] == pytest.approx(144 / 216)
