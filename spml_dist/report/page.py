"""The page: from a run folder to one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spml_dist.drawing.overlay import palette
from spml_dist.errors import RunError
from spml_dist.files.write import write_text
from spml_dist.report import contents, curves, labels, refinement
from spml_dist.report.charts import confusion_figure, draw, svg
from spml_dist.report.contents import Contents
from spml_dist.report.summary import failures, headline, settings, title
from spml_dist.run_folder import RunFolder, preview_step

PREVIEWS = 4
"""training previews shown at most, spread over the training"""
WIDEST, HIGHEST = 1400, 16383
"""pixels of an embedded image: twice what a card is wide where two stand side by side, and WebP's limit"""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,  # names of classes and images come from the data
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters["thousands"] = "{:,}".format


def write_report(folder: str | Path) -> Path:
    """Write FOLDER/report.html from whatever the run has left so far, and return its path.

    Images and charts are embedded: the file needs no other file and no network.
    RunError: a configuration or a result that cannot be read, or a folder that cannot be written.
    """
    run = contents.read(Path(folder))
    page = _TEMPLATES.get_template("report.html").render(
        run=run,
        settings=settings(run),
        headline=headline(run),
        results=[_result(run, result) for result in run.results],
        refinement=refinement.section(run.refinement) if run.refinement else None,
        labels=labels.section(run.labels) if run.labels else None,
        training=_charts(curves.of_training(run.steps)),
        failures=failures(run),
        machines=_charts(curves.of_machines(run.nodes)),
        previews=[(preview_step(path), _webp(path)) for path in _spread(run.previews)],
    )
    path = RunFolder(run.folder).report
    write_text(path, page.strip() + "\n", "make room for it")
    return path


def _result(run: Contents, result: dict) -> dict[str, Any]:
    pictures, extremes, readouts = run.pictures(result), run.extremes(result), result["readouts"]
    matrices = [
        svg(confusion_figure(counts, result["classes"], title(readout)))
        for readout, counts in result["confusion"].items()
    ]
    return {
        "split": result["split"],
        "about": "".join(f", {way}" for way in result.get("ways", ())),
        "oracle": result["oracle"],
        "titles": [title(readout) for readout in readouts],
        "rows": _rows(result),
        "notes": " ".join(_notes(result)),
        "pictures": pictures and _webp(pictures),
        "extremes": extremes and _webp(extremes),
        "details": _details(result),
        "confusion": [Markup(each) for each in matrices],
    }


def _rows(result: dict) -> list[dict[str, Any]]:
    """IoU of every class by every read-out, then the means."""
    readouts, classes = result["readouts"].values(), result["classes"]
    present = set(result["classes_present"])
    colours = palette(len(classes), result["background"]).tolist()
    rows = [
        {
            "name": name if name in present else f"{name} (not shown)",
            "kind": "" if name in present else "absent",
            "colour": tuple(colour),
            "shares": [values["iou"][name] for values in readouts],
        }
        for name, colour in zip(classes, colours, strict=False)
    ]
    means = {"mean IoU": [values["miou"] for values in readouts]}
    if 0 < len(present) < len(classes):  # the others count as 0 in the mean of all
        means["mean of shown classes"] = [
            mean(values["iou"][name] for name in present) for values in readouts
        ]
    if all("boundary_miou" in values for values in readouts):
        means["mean boundary IoU"] = [values["boundary_miou"] for values in readouts]
    rows += [{"name": n, "kind": "mean", "colour": None, "shares": shares} for n, shares in means.items()]
    return rows


def _details(result: dict) -> list[tuple[str, list[float]]]:
    """Precision, recall and boundary IoU of every class, read-out by read-out; none of an earlier release."""
    readouts = result["readouts"].values()
    if not all("pixel_precision" in values for values in readouts):
        return []
    numbers = ("pixel_precision", "pixel_recall", "boundary_iou")
    return [
        (name, [values[number][name] for values in readouts for number in numbers])
        for name in result["classes"]
    ]


def _notes(result: dict) -> Iterable[str]:
    readouts = result["readouts"].items()
    accuracy = ", ".join(f"{title(name)} {100 * values['pixel_accuracy']:.1f} %" for name, values in readouts)
    pack = f" of {result['pack']}" if "pack" in result else ""  # results of earlier releases name none
    yield f"Intersection over union in per cent, counted over {result['images']:,} images{pack}."
    yield f"Pixels that are right: {accuracy}."
    kinds = ", ".join(result.get("train_labels", ["the training set's labels"]))
    labelled = "with ground truth." if result["oracle"] else f"by {kinds}."
    for name, values in readouts:
        if "prototypes" in values:
            count = f"{values['prototypes']:,} training prototypes"
            yield f"The {title(name)} are searched among {count} labelled {labelled}"
    if absent := len(result["classes"]) - len(result["classes_present"]):
        yield f"Classes that this split does not show count as 0 in the mean: {absent}."


def _charts(all_curves: Iterable[curves.Curves]) -> list[tuple[str, Markup]]:
    return [(each.title, Markup(draw(each))) for each in all_curves]


def _spread(previews: Sequence[Path]) -> list[Path]:
    """The first, the last, and some between."""
    last = len(previews) - 1
    picked = {round(last * number / (PREVIEWS - 1)) for number in range(PREVIEWS)} if previews else ()
    return [previews[number] for number in sorted(picked)]


def _webp(path: Path) -> str:
    """The image in base64 as WebP, a fifth of the bytes of its PNG, no wider than it is ever shown and no
    higher than the format can hold."""
    image = cv2.imread(str(path))
    if image is None:
        raise RunError(f"{path} is not an image", None, "take it away")
    height, width = image.shape[:2]
    scale = min(1, WIDEST / width, HIGHEST / height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 84])[1]
    return base64.b64encode(encoded.tobytes()).decode()
