"""The section about labels: what the training had to learn from, and where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spml_dist.drawing.overlay import palette


def section(labels: dict[str, Any]) -> dict[str, Any]:
    """What a run's labels.json holds, as the page shows it."""
    counts = labels["counts"]
    return {
        "hints": labels["hints"],
        "verdict": _verdict(labels),
        "origin": f"{labels['name']}, labels from {labels['labels'].replace(',', ', ')}: "
        f"{labels['samples']:,} images.",
        "images": [(name, images, images / labels["samples"]) for name, images in _images(labels)],
        "share": sum(counts["pixels_labelled"]) / counts["pixels"],
        "classes": list(_classes(labels)),
        "doubtful": list(_doubtful(labels)),
    }


def _verdict(labels: dict[str, Any]) -> str:
    """That nothing is missing, only where the counts tell so too; CAM learns from tags."""
    of_tags = labels.get("network") == "cam"
    what = "tags" if of_tags else "labelled pixels"
    counts = labels["counts"]["images_tagged" if of_tags else "pixels_labelled"]
    never = labels["background"] if of_tags else None  # the background is no tag
    missing = [name for label, name in enumerate(labels["classes"]) if not counts[label] and label != never]
    if missing:
        return f"Classes without {what}: {', '.join(missing)}."
    return f"Every class has {what}, and nothing contradicts."


def _images(labels: dict[str, Any]) -> Iterator[tuple[str, int]]:
    counts = labels["counts"]
    for kind, images in counts["kinds"].items():
        yield f"with {kind}", images
    if counts["kinds"] and (none := counts.get("images_of_no_kind")):
        yield "with none of them", none
    yield "with labelled pixels", counts["images_labelled"]
    yield "without labelled pixels", counts["images_unlabelled"]
    yield "whose tags are unknown", counts["images_tags_unknown"]


def _classes(labels: dict[str, Any]) -> Iterator[dict[str, Any]]:
    counts, classes = labels["counts"], labels["classes"]
    colours = palette(len(classes), labels["background"]).tolist()
    pixels, tagged = counts["pixels_labelled"], counts["images_tagged"]
    for label, name in enumerate(classes):
        yield {
            "name": name,
            "colour": tuple(colours[label]),
            "tagged": None if label == labels["background"] else tagged[label],
            "pixels": pixels[label],
            "share": pixels[label] / max(1, sum(pixels)),
        }


def _doubtful(labels: dict[str, Any]) -> Iterator[tuple[str, str, int, str]]:
    """Images whose tags and pixels contradict, by class; no unseen tags where no pixel has a class."""
    counts, classes = labels["counts"], labels["classes"]
    of_class = (n for label, n in enumerate(counts["pixels_labelled"]) if label != labels["background"])
    kinds = {"unlisted": "shown, but not among the tags"}
    kinds |= {"unseen": "promised by a tag, no pixel labelled"} if any(of_class) else {}
    for kind, what in kinds.items():
        for label, named in enumerate(counts.get(f"named_{kind}", ())):
            if images := counts[f"images_{kind}"][label]:
                yield classes[label], what, images, ", ".join(named) + (", …" if images > len(named) else "")
