"""Hints name what is missing, with numbers, and say nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spml_dist.data.format.diagnose import hints
from spml_dist.data.format.manifest import LabelCounts, Manifest

SOUND = Manifest(
    name="pets",
    split="train",
    labels="lines,tags",
    classes=("background", "cat", "dog", "eel"),
    background=0,
    samples=90,
    counts=LabelCounts(
        images_labelled=90,
        images_unlabelled=0,
        images_tags_unknown=0,
        pixels=10**6,
        pixels_labelled=(9000, 500, 500, 700),
        images_tagged=(0, 30, 40, 50),
        images_unseen=(0, 0, 0, 0),
        images_unlisted=(0, 0, 0, 0),
        kinds={"lines": 90},
    ),
    shards=(),
)


def message(**counts) -> list[str]:
    return hints(replace(SOUND, counts=replace(SOUND.counts, **counts)))


def test_nothing_is_said_of_a_pack_that_lacks_nothing():
    assert hints(SOUND) == []


def test_classes_without_a_pixel_are_named():
    assert message(pixels_labelled=(9000, 500, 0, 0)) == [
        "No pixel is labelled as dog and eel (2 of 4 classes)."
    ]


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ({"images_tagged": (0, 4, 40, 50)}, "cat (4 images, 500 pixels)"),
        ({"images_tagged": (0, 1, 40, 50)}, "cat (1 image, 500 pixels)"),
        ({"pixels_labelled": (9000, 500, 5, 700)}, "dog (40 images, 5 pixels)"),
    ],
)
def test_classes_with_few_labels_are_named_with_the_rule(counts, named):
    (hint,) = message(**counts)
    assert hint == (
        f"Few labels (fewer than 5 images with its tag, or less than 1/100 of the median's pixels): {named}."
    )


@pytest.mark.parametrize(
    "counts", [{"images_tagged": (0, 5, 40, 50)}, {"pixels_labelled": (9000, 500, 6, 700)}]
)
def test_classes_with_just_enough_labels_are_not(counts):
    assert message(**counts) == []


def test_a_class_that_is_never_a_tag_is_named_but_not_the_background():
    assert message(images_tagged=(0, 30, 0, 50)) == ["No image carries the tag of dog."]


def test_promises_and_omissions_are_told_with_the_most_frequent_first():
    unseen, unlisted = message(images_unseen=(0, 2, 1, 30), images_unlisted=(0, 0, 3, 0))
    assert unseen.endswith("no pixel is labelled: eel (30 images), cat (2 images) and dog (1 image).")
    assert unlisted == "Pixels or boxes show a class that the list of tags leaves out: dog (3 images)."


def test_a_class_of_nearly_every_image_is_named():
    assert message(images_tagged=(0, 81, 40, 50)) == []
    (hint,) = message(images_tagged=(0, 82, 40, 50))
    assert hint.startswith("Nearly every image carries the tag of cat: ") and "ignore_classes" in hint
    counted = replace(SOUND.counts, images_tagged=(0, 82, 90, 50))
    (hint,) = hints(replace(SOUND, counts=counted), ignored=(2,))
    assert "the tag of cat: " in hint
    *_, hint = message(images_tagged=(0, 40, 41, 2), images_tags_unknown=45)
    assert "the tag of dog: " in hint


def test_promises_and_omissions_name_the_first_images():
    ids = tuple("abcdefgh")
    unseen, unlisted = message(
        images_unseen=(0, 2, 0, 30),
        named_unseen=((), ids[:2], (), ids),
        images_unlisted=(0, 0, 3, 0),
        named_unlisted=((), (), ids[:3], ()),
    )
    assert unseen.endswith("no pixel is labelled: eel (30 images: a, b, c, …) and cat (2 images: a, b).")
    assert unlisted.endswith("leaves out: dog (3 images: a, b, c).")


def test_images_of_which_little_is_known_are_counted():
    unknown, unlabelled = message(images_tags_unknown=12, images_unlabelled=7)
    assert unknown.startswith("12 of 90 images have unknown tags")
    assert unlabelled == (
        "7 of 90 images have no labelled pixel and teach by image similarity, by feature affinity through "
        "the bank and by co-occurrence where their tags are known."
    )


def test_contradictions_and_rejected_images_are_counted():
    assert message(pixels_contradicted=1234) == [
        "Kinds of annotation contradict each other on 1,234 pixels: of lines, tags the earlier decides."
    ]
    assert hints(replace(SOUND, rejected=3)) == ["3 images could not be packed: rejected.jsonl says why."]


def test_labels_of_tags_or_boxes_alone_ask_for_cam():
    tags = message(
        pixels_labelled=(0, 0, 0, 0), images_labelled=0, images_unlabelled=90, images_unseen=(0, 30, 40, 50)
    )
    boxes = message(pixels_labelled=(9000, 0, 0, 0), images_unseen=(0, 30, 40, 50), kinds={"boxes": 90})
    assert tags[0].startswith("Tags of 90 images are all that tells of classes")
    assert boxes[0].startswith("Boxes and tags of 90 images are all that tells of classes")
    assert all("spml-dist cam train" in hint for hint in (tags[0], boxes[0]))
    assert not any("promise" in hint for hint in tags + boxes)


def test_tags_whose_pixels_are_missing_in_part_lead_to_cam_too():
    (hint,) = message(images_unseen=(0, 9, 0, 0), kinds={"lines": 60, "boxes": 30})
    assert hint.endswith("CAM can find some (spml-dist cam train, then spml-dist cam infer).")


def test_what_cam_has_labelled_is_not_sent_to_cam_again():
    (promised,) = message(images_unseen=(0, 9, 0, 0), kinds={"tags": 90, "cam": 80})
    assert promised.endswith("no pixel is labelled: cat (9 images).")
    (alone, *_) = message(pixels_labelled=(9000, 0, 0, 0), kinds={"tags": 90, "cam": 80})
    assert alone.endswith("no pixel is labelled as one.")


def test_one_rejected_image_is_one_image():
    assert hints(replace(SOUND, rejected=1)) == ["1 image could not be packed: rejected.jsonl says why."]


REJECTED = "3 images could not be packed: rejected.jsonl says why."


@pytest.mark.parametrize(
    ("pack", "kinds"), [({"labels": "masks", "version": 1}, {}), ({"labels": "lines,masks"}, {"masks": 90})]
)
def test_a_pack_of_whole_masks_is_told_how_to_train_only_where_it_is_trained_on(pack, kinds):
    lacking = {"pixels_labelled": (9000, 500, 0, 5), "images_tagged": (0, 1, 0, 5), "images_unlabelled": 7}
    counts = replace(SOUND.counts, **lacking, kinds=kinds)
    manifest = replace(SOUND, **pack, counts=counts, rejected=3)
    assert hints(manifest) == [REJECTED]
    first, *_, last = hints(manifest, training=True)
    assert (first, last) == ("No pixel is labelled as dog (1 of 4 classes).", REJECTED)


@pytest.mark.parametrize(
    ("pack", "serves"),
    [
        (
            {"labels": "lines"},
            "preview, training by image similarity alone and evaluation, of the images that have whole masks",
        ),
        ({"labels": "none"}, "preview and training by image similarity alone"),
        ({"labels": "none", "classes": ()}, "preview"),
    ],
)
def test_nor_is_one_of_which_nothing_is_annotated_but_what_it_serves(pack, serves):
    manifest = replace(SOUND, **pack)
    none = (0,) * len(manifest.classes)
    nothing = {"pixels_labelled": none, "images_tagged": none, "images_labelled": 0, "kinds": {}}
    counts = replace(SOUND.counts, **nothing, images_tags_unknown=90, images_unlabelled=90)
    manifest = replace(manifest, counts=counts)
    (hint,) = hints(manifest)
    assert hint.startswith(f"No image is annotated for training: the pack serves {serves}. To train on these")
    first, *_ = hints(manifest, training=True)
    assert first == "No image has a label or a tag of a class: there is nothing to learn classes from."


def test_a_pack_without_any_label_says_so():
    first, *_ = message(
        pixels_labelled=(0, 0, 0, 0), images_tagged=(0, 0, 0, 0), images_tags_unknown=90, images_unlabelled=90
    )
    assert first.startswith("No image has a label or a tag")


def test_many_names_are_cut_short():
    many = replace(
        SOUND,
        classes=tuple(f"c{i}" for i in range(40)),
        counts=replace(SOUND.counts, pixels_labelled=(500, 500, *[0] * 38), images_tagged=(0, *[30] * 39)),
    )
    (hint,) = hints(many)
    assert hint == "No pixel is labelled as c2, c3, c4, c5, c6, c7, c8 and 31 more (38 of 40 classes)."


def test_version_1_which_counted_less_has_hints_all_the_same():
    counts = replace(SOUND.counts, images_unseen=(), images_unlisted=(), kinds={}, images_unlabelled=5)
    assert len(hints(replace(SOUND, version=1, counts=counts))) == 1
