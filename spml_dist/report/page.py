"""The page: from a run folder to one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from statistics import mean

import cv2

from spml_dist.drawing.overlay import palette
from spml_dist.errors import RunError
from spml_dist.files.write import write_text
from spml_dist.report import contents, curves, labels
from spml_dist.report.charts import draw
from spml_dist.report.confusion import WRITTEN, matrix
from spml_dist.report.contents import Contents
from spml_dist.report.style import CSS
from spml_dist.report.summary import headline, settings, title
from spml_dist.run_folder import RunFolder, preview_step

PREVIEWS = 4
"""training previews shown at most, spread over the training"""
WIDEST = 1400
"""pixels of an embedded image, twice what a card is wide where two stand side by side"""


def write_report(folder: str | Path) -> Path:
    """Write FOLDER/report.html from whatever the run has left so far, and return its path.

    Images and charts are embedded: the file needs no other file and no network.
    RunError: a configuration or a result that cannot be read, or a folder that cannot be written.
    """
    run = contents.read(Path(folder))
    body = [_header(run), *_results(run), *(labels.section(run.labels) if run.labels else ())]
    body += [*_training(run), *_previews(run), *_machines(run), *_settings(run)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )
    path = RunFolder(run.folder).report
    write_text(path, page, "make room for it")
    return path


def _header(run: Contents) -> str:
    line = " · ".join(f"{name} {value}" for name, value in settings(run).items())
    tiles = "".join(
        f'<div class="card tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in headline(run).items()
    )
    return f'<h1>{escape(run.name)}</h1><p class="soft">{escape(line)}</p><div class="tiles">{tiles}</div>'


def _results(run: Contents) -> Iterable[str]:
    if not run.results:
        command = escape(f"spml-dist evaluate {run.folder}")
        yield "<h2>Result</h2>"
        yield f'<div class="card"><p>Not evaluated yet: <code>{command} --split val</code></p></div>'
    for result in run.results:
        yield f"<h2>Result on {escape(result['split'])}{' (oracle)' if result['oracle'] else ''}</h2>"
        yield f'<div class="card">{_table(result)}</div>'
        sheet = run.pictures(result)
        if sheet:
            yield f'<div class="card">{_image(sheet, "evaluated images")}</div>'
        yield _confusion(result)


def _confusion(result: dict) -> str:
    drawn = "".join(
        matrix(counts, result["classes"], f"{title(readout)}: predicted class in per cent of each true class")
        for readout, counts in result["confusion"].items()
    )
    columns = "pair" if len(result["classes"]) <= WRITTEN else ""
    return f'<div class="card"><h3>Confusion</h3><div class="{columns}">{drawn}</div></div>'


def _table(result: dict) -> str:
    readouts, classes, there = result["readouts"], result["classes"], set(result["classes_present"])
    colours = palette(len(classes), result["background"])
    head = "".join(f"<th>{escape(title(name))}</th>" for name in readouts)
    rows = [
        _row(name, [values["iou"][name] for values in readouts.values()], colours[number], name in there)
        for number, name in enumerate(classes)
    ]
    rows.append(_row("mean IoU", [values["miou"] for values in readouts.values()], None, True))
    if 0 < len(there) < len(classes):  # the others count as 0 in the mean of all
        means = [mean(values["iou"][name] for name in there) for values in readouts.values()]
        rows.append(_row("mean of shown classes", means, None, True))
    return (
        f'<div class="scroll"><table><tr><th>class</th>{head}</tr>{"".join(rows)}</table></div>'
        f'<p class="soft">{escape(_notes(result))}</p>'
    )


def _notes(result: dict) -> str:
    readouts = result["readouts"].items()
    accuracy = ", ".join(f"{title(name)} {100 * values['pixel_accuracy']:.1f} %" for name, values in readouts)
    notes = [f"Intersection over union in per cent, counted over {result['images']:,} images."]
    notes += [f"Pixels that are right: {accuracy}."]
    notes += [
        f"The {title(name)} are searched among {values['prototypes']:,} training prototypes labelled "
        + ("with ground truth." if result["oracle"] else "by weak labels only.")
        for name, values in readouts
        if "prototypes" in values
    ]
    absent = len(result["classes"]) - len(result["classes_present"])
    notes += [f"Classes that this split does not show count as 0 in the mean: {absent}."] * bool(absent)
    return " ".join(notes)


def _row(name: str, values: list[float], colour, there: bool) -> str:
    paint = "" if colour is None else f"background:rgb{tuple(map(int, colour))}"
    swatch = f'<span class="swatch" style="{paint}"></span>' if paint else ""
    kind = "mean" if colour is None else "" if there else "absent"
    cells = "".join(
        f'<td class="bar{" second" if number else ""}"><div><span class="value">{100 * value:.1f}</span>'
        f'<span class="track"><i style="width:{100 * value:.1f}%"></i></span></div></td>'
        for number, value in enumerate(values)
    )
    label = escape(name) + ("" if there else " (not shown)")
    return f'<tr class="{kind}"><td>{swatch}{label}</td>{cells}</tr>'


def _training(run: Contents) -> Iterable[str]:
    drawn = _charts(curves.of_training(run.steps))
    if drawn:
        yield f'<h2>Training</h2><div class="grid">{drawn}</div>'


def _machines(run: Contents) -> Iterable[str]:
    drawn = _charts(curves.of_machines(run.nodes))
    if drawn:
        yield f'<h2>Machines</h2><div class="grid">{drawn}</div>'


def _charts(found: Iterable[curves.Curves]) -> str:
    return "".join(f'<div class="card"><h3>{escape(each.title)}</h3>{draw(each)}</div>' for each in found)


def _previews(run: Contents) -> Iterable[str]:
    last = len(run.previews) - 1
    picked = (
        sorted({round(last * number / (PREVIEWS - 1)) for number in range(PREVIEWS)}) if last >= 0 else []
    )
    shown = [run.previews[number] for number in picked]
    if shown:
        figures = "".join(_image(path, f"step {preview_step(path):,}", caption=True) for path in shown)
        yield f'<h2>While it learned</h2><div class="card pair">{figures}</div>'


def _settings(run: Contents) -> Iterable[str]:
    if run.config_text:
        yield "<h2>Configuration</h2>"
        text = f"<details><summary>config.yaml</summary><pre>{escape(run.config_text)}</pre></details>"
        yield f'<div class="card">{text}</div>'


def _image(path: Path, name: str, caption: bool = False) -> str:
    """The image as WebP, which takes a fifth of the bytes of its PNG, no wider than it is ever shown."""
    image = cv2.imread(str(path))
    if image is None:
        raise RunError(f"{path} is not an image", None, "take it away")
    if image.shape[1] > WIDEST:
        height = round(image.shape[0] * WIDEST / image.shape[1])
        image = cv2.resize(image, (WIDEST, height), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 84])[1]
    data = base64.b64encode(encoded.tobytes()).decode()
    text = f"<figcaption>{escape(name)}</figcaption>" if caption else ""
    return f'<figure>{text}<img alt="{escape(name)}" src="data:image/webp;base64,{data}"></figure>'
