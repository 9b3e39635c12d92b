"""Where labels are missing: from the counts of a manifest to sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from statistics import median

from spml_dist.data.format.manifest import LabelCounts, Manifest
from spml_dist.records import LABELERS

FEW_IMAGES = 5
FEW_PIXELS = 100
"""A class has few labels if fewer than FEW_IMAGES images carry it as a tag, or if it has less than the
FEW_PIXELS-th part of the pixels of the median labelled class."""
EVERYWHERE = 0.9
"""share of the images with known tags beyond which a class is nearly everywhere"""
_NAMED = 8
_UNANNOTATED = "none"
"""labels of a pack of bare images, which have no whole masks either"""
_EXAMPLES = 3
"""images that a sentence names; the manifest and the report name more"""
_CAM = "spml-dist cam train, then spml-dist cam infer"
TEACH = (
    "teach by image similarity, by feature affinity through the bank "
    "and by co-occurrence where their tags are known"
)
"""what images without a labelled pixel do in a training that gives all relations a weight"""


def hints(manifest: Manifest, training: bool = False, ignored: Collection[int] = ()) -> list[str]:
    """What is missing or doubtful, with numbers, the weightiest first; empty where nothing is.

    training: whether the pack is trained on. Where nobody knows yet, whole masks alone are taken for
    evaluation, and what is not annotated for neither: of these nothing is said that concerns training.
    ignored: classes that the training does not ask co-occurrence about.
    """
    of_training = (*_OF_TRAINING, partial(_ubiquitous, ignored=ignored))
    finders = of_training if training or not _evaluates(manifest) else (_bare,)
    return [hint for find in finders + _OF_ANY_PACK for hint in find(manifest)]


def _evaluates(manifest: Manifest) -> bool:
    kinds = set(manifest.counts.kinds)
    return manifest.labels == "masks" or kinds == {"masks"} or _is_bare(manifest)


def _is_bare(manifest: Manifest) -> bool:
    """Whether nothing is annotated; whole masks may be packed beside."""
    counts = manifest.counts
    return manifest.version > 1 and not (counts.kinds or counts.images_labelled or any(counts.images_tagged))


def _bare(manifest: Manifest) -> Iterator[str]:
    if not _is_bare(manifest):
        return
    serves = ["preview"]
    if manifest.classes:
        serves.append("training by image similarity alone")
    if manifest.labels != _UNANNOTATED:
        serves.append("evaluation, of the images that have whole masks")
    remedy = "To train on these images beside labelled ones, pack them together: spml-dist pack folder."
    yield f"No image is annotated for training: the pack serves {_and(serves)}. {remedy}"


def _unlabelled_classes(manifest: Manifest) -> Iterator[str]:
    pixels, counts = manifest.counts.pixels_labelled, manifest.counts
    missing = [name for name, count in zip(manifest.classes, pixels, strict=True) if not count]
    if _labels_a_class(manifest):
        if missing:
            yield f"No pixel is labelled as {_and(missing)} ({len(missing)} of {len(pixels)} classes)."
    elif any(counts.images_tagged):
        images = _images(manifest.samples - counts.images_tags_unknown)
        kinds = "Boxes and tags" if "boxes" in counts.kinds else "Tags"
        remedy = "" if _is_labelled(counts) else f" Make seeds first ({_CAM}), and train on the new pack."
        yield f"{kinds} of {images} are all that tells of classes: no pixel is labelled as one.{remedy}"
    else:
        yield "No image has a label or a tag of a class: there is nothing to learn classes from."


def _rare_classes(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    labelled = [count for count in counts.pixels_labelled if count]
    enough = median(labelled) / FEW_PIXELS if labelled else 0
    few = [
        f"{name} ({_images(images)}, {_pixels(pixels)})"
        for label, (name, images, pixels) in enumerate(
            zip(manifest.classes, counts.images_tagged, counts.pixels_labelled, strict=True)
        )
        if 0 < pixels < enough or (0 < images < FEW_IMAGES and label != manifest.background)
    ]
    if few:
        rule = (
            f"fewer than {FEW_IMAGES} images with its tag, or less than 1/{FEW_PIXELS} of the median's pixels"
        )
        yield f"Few labels ({rule}): {_and(few)}."


def _untagged_classes(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    missing = [
        name
        for label, (name, images) in enumerate(zip(manifest.classes, counts.images_tagged, strict=True))
        if not images and label != manifest.background
    ]
    if missing and any(counts.images_tagged):
        yield f"No image carries the tag of {_and(missing)}."


def _ubiquitous(manifest: Manifest, ignored: Collection[int]) -> Iterator[str]:
    counts = manifest.counts
    tagged = manifest.samples - counts.images_tags_unknown
    classes = [
        name
        for label, (name, images) in enumerate(zip(manifest.classes, counts.images_tagged, strict=True))
        if images > EVERYWHERE * tagged and label not in (manifest.background, *ignored)
    ]
    if classes and tagged >= FEW_IMAGES:
        reason = "such a tag tells neither CAM where its class is nor co-occurrence which segments differ"
        remedy = "name them in relations.cooccurrence.ignore_classes"
        yield f"Nearly every image carries the tag of {_and(classes)}: {reason}; {remedy}."


def _promised(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    classes = _by_class(manifest, counts.images_unseen, counts.named_unseen)
    if classes and _labels_a_class(manifest):
        kinds = set(counts.kinds)
        findable = kinds & {"tags", "boxes"} and not _is_labelled(counts)
        remedy = f" CAM can find some ({_CAM})." if findable else ""
        yield f"Tags promise a class of which no pixel is labelled: {classes}.{remedy}"


def _unlisted(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    if classes := _by_class(manifest, counts.images_unlisted, counts.named_unlisted):
        yield f"Pixels or boxes show a class that the list of tags leaves out: {classes}."


def _counted(count: Callable[[Manifest], int], sentence: str) -> Callable[[Manifest], Iterator[str]]:
    """A finder of images that are counted as a whole; the sentence goes on after "12 of 160 images"."""

    def find(manifest: Manifest) -> Iterator[str]:
        if images := count(manifest):
            yield f"{images:,} of {_images(manifest.samples)} {sentence}"

    return find


def _contradicted(manifest: Manifest) -> Iterator[str]:
    if pixels := manifest.counts.pixels_contradicted:
        decides = f"of {manifest.labels.replace(',', ', ')} the earlier decides"
        yield f"Kinds of annotation contradict each other on {_pixels(pixels)}: {decides}."


def _rejected(manifest: Manifest) -> Iterator[str]:
    if manifest.rejected:
        images = f"{manifest.rejected:,} image{'s' * (manifest.rejected != 1)}"
        yield f"{images} could not be packed: rejected.jsonl says why."


_OF_TRAINING = (
    _unlabelled_classes,
    _rare_classes,
    _untagged_classes,
    _promised,
    _unlisted,
    _counted(lambda m: m.counts.images_tags_unknown, "have unknown tags and take no part in co-occurrence."),
    _counted(lambda m: m.counts.images_unlabelled, f"have no labelled pixel and {TEACH}."),
)
_OF_ANY_PACK = (_contradicted, _rejected)


def _is_labelled(counts: LabelCounts) -> bool:
    """Whether a labeler has been at work."""
    return not counts.kinds.keys().isdisjoint(LABELERS)


def _labels_a_class(manifest: Manifest) -> bool:
    return any(
        count for label, count in enumerate(manifest.counts.pixels_labelled) if label != manifest.background
    )


def _by_class(manifest: Manifest, images: Sequence[int], named: Sequence[Sequence[str]]) -> str:
    """Classes with the images counted and some named, most images first; earlier releases did less of it."""
    most_first = sorted((-count, label) for label, count in enumerate(images) if count)
    named = named or [()] * len(images)
    return _and([f"{manifest.classes[label]} ({_some(-count, named[label])})" for count, label in most_first])


def _some(count: int, named: Sequence[str]) -> str:
    """ "12 images: a, b, c, …"."""
    rest = ["…"] if count > _EXAMPLES else []
    return _images(count) + (f": {', '.join([*named[:_EXAMPLES], *rest])}" if named else "")


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _pixels(count: int) -> str:
    return f"{count:,} pixel{'s' * (count != 1)}"


def _and(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
