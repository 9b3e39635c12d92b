"""The section about labels: what the training had to learn from, and where something is missing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from spml_dist.drawing.overlay import palette


def section(labels: dict[str, Any]) -> Iterable[str]:
    """HTML of what a run's labels.json says."""
    yield "<h2>Labels</h2>"
    yield f'<div class="card">{_hints(labels)}</div>'
    yield f'<div class="card"><h3>Images</h3>{_images(labels)}</div>'
    yield f'<div class="card"><h3>Classes</h3>{_classes(labels)}</div>'
    if doubtful := _doubtful(labels):
        yield f'<div class="card"><h3>Images to look at</h3>{doubtful}</div>'


def _hints(labels: dict[str, Any]) -> str:
    """What is missing; that nothing is, only where the counts say so too."""
    if labels["hints"]:
        return f"<ul>{''.join(f'<li>{escape(hint)}</li>' for hint in labels['hints'])}</ul>"
    what, missing = _missing(labels)
    if missing:
        return f"<p>Classes without {what}: {escape(', '.join(missing))}.</p>"
    return f"<p>Every class has {what}, and nothing contradicts.</p>"


def _missing(labels: dict[str, Any]) -> tuple[str, list[str]]:
    """What the run learns classes from, and the classes of which there is none; CAM learns from tags."""
    of_tags = labels.get("network") == "cam"
    counts = labels["counts"]["images_tagged" if of_tags else "pixels_labelled"]
    never = labels["background"] if of_tags else None  # the background is no tag
    missing = [name for label, name in enumerate(labels["classes"]) if not counts[label] and label != never]
    return "tags" if of_tags else "labelled pixels", missing


def _images(labels: dict[str, Any]) -> str:
    counts, samples = labels["counts"], labels["samples"]
    rows = [(f"with {kind}", images) for kind, images in counts["kinds"].items()]
    rows += [("with none of them", none)] if (none := counts.get("images_of_no_kind")) and rows else []
    rows += [
        ("with labelled pixels", counts["images_labelled"]),
        ("without labelled pixels", counts["images_unlabelled"]),
        ("whose tags are unknown", counts["images_tags_unknown"]),
    ]
    drawn = "".join(
        f"<tr><td>{escape(name)}</td><td>{images:,}</td>{_bar(images / samples)}</tr>"
        for name, images in rows
    )
    head = "<tr><th>images</th><th>number</th><th>per cent</th></tr>"
    told = f"{labels['name']}, labels from {labels['labels'].replace(',', ', ')}: {samples:,} images."
    return f'<p class="soft">{escape(told)}</p><div class="scroll"><table>{head}{drawn}</table></div>'


def _classes(labels: dict[str, Any]) -> str:
    counts, classes, background = labels["counts"], labels["classes"], labels["background"]
    colours = palette(len(classes), background)
    pixels, tagged = counts["pixels_labelled"], counts["images_tagged"]
    rows = "".join(
        f'<tr class="{"" if pixels[label] else "absent"}"><td>{_swatch(colours[label])}{escape(name)}</td>'
        f"<td>{'–' if label == background else format(tagged[label], ',')}</td>"
        f"<td>{pixels[label]:,}</td>{_bar(pixels[label] / max(1, sum(pixels)))}</tr>"
        for label, name in enumerate(classes)
    )
    head = (
        "<tr><th>class</th><th>images with its tag</th><th>labelled pixels</th><th>per cent of them</th></tr>"
    )
    share = 100 * sum(pixels) / counts["pixels"]
    told = f"{share:.2f} % of all pixels are labelled."
    return f'<p class="soft">{told}</p><div class="scroll"><table>{head}{rows}</table></div>'


def _doubtful(labels: dict[str, Any]) -> str:
    """Images whose tags and pixels do not say the same, by class; nothing where no pixel has a class."""
    counts, classes = labels["counts"], labels["classes"]
    of_class = (n for label, n in enumerate(counts["pixels_labelled"]) if label != labels["background"])
    kinds = [("unlisted", "shown, but not among the tags")]
    kinds += [("unseen", "promised by a tag, no pixel labelled")] if any(of_class) else []
    rows = "".join(
        f"<tr><td>{escape(classes[label])}</td><td>{what}</td><td>{images:,}</td>"
        f"<td>{escape(', '.join(named))}{', …' if images > len(named) else ''}</td></tr>"
        for kind, what in kinds
        for label, named in enumerate(counts.get(f"named_{kind}", ()))
        if (images := counts[f"images_{kind}"][label])
    )
    head = "<tr><th>class</th><th></th><th>images</th><th>which</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>' if rows else ""


def _bar(share: float) -> str:
    return (
        f'<td class="bar"><div><span class="value">{100 * share:.1f}</span>'
        f'<span class="track"><i style="width:{100 * share:.1f}%"></i></span></div></td>'
    )


def _swatch(colour: Any) -> str:
    return f'<span class="swatch" style="background:rgb{tuple(map(int, colour))}"></span>'
