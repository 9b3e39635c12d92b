"""The page: from a run folder to one self-contained HTML file."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from html import escape
from pathlib import Path

import cv2

from spml_dist.pictures import palette
from spml_dist.report import run_folder
from spml_dist.report.charts import curves
from spml_dist.report.run_folder import RunFolder
from spml_dist.report.style import CSS

SETTINGS = (
    ("backbone", "model.backbone"),
    ("workers", "engine.workers"),
    ("steps", "schedule.steps"),
    ("batch", "stream.batch"),
    ("crop", "stream.crop"),
    ("learning rate", "optimizer.lr"),
    ("ZeRO stage", "engine.zero_stage"),
    ("precision", "engine.precision"),
    ("seed", "seed"),
    ("trained on", "data.train"),
)


def write_report(folder: str | Path) -> Path:
    """Write FOLDER/report.html from whatever the run has left so far, and return its path.

    Pictures and charts are embedded: the file needs no other file and no network.
    """
    run = run_folder.read(Path(folder))
    body = [_header(run), *_results(run), *_training(run), *_settings(run)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )
    path = run.folder / "report.html"
    aside = path.with_name("report.html.tmp")
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def _header(run: RunFolder) -> str:
    values = [(name, _setting(run.config, key)) for name, key in SETTINGS]
    line = " · ".join(f"{name} {escape(str(value))}" for name, value in values if value is not None)
    tiles = "".join(
        f'<div class="card tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in _headline(run)
    )
    return f'<h1>{escape(run.name)}</h1><p class="soft">{line}</p><div class="tiles">{tiles}</div>'


def _headline(run: RunFolder) -> Iterable[tuple[str, str]]:
    for result in run.results[:1]:
        for readout, values in result["readouts"].items():
            yield f"mIoU, {_title(readout)}, {result['split']}", f"{100 * values['miou']:.1f} %"
        yield "pictures evaluated", f"{result['images']:,}"
    if run.steps:
        last = run.steps[-1]
        yield "steps trained", f"{last['step']:,}"
        if isinstance(last.get("loss"), int | float):
            yield "last loss", f"{last['loss']:.3f}"
        speeds = [
            row["images_per_s"] for row in run.steps if isinstance(row.get("images_per_s"), int | float)
        ]
        if speeds:
            yield "images a second, median", f"{sorted(speeds)[len(speeds) // 2]:,.1f}"


def _results(run: RunFolder) -> Iterable[str]:
    if not run.results:
        command = escape(f"spml-dist evaluate {run.folder}")
        yield "<h2>Result</h2>"
        yield f'<div class="card"><p>Not evaluated yet: <code>{command} --split val</code></p></div>'
    for result in run.results:
        yield f"<h2>Result on {escape(result['split'])}{' (oracle)' if result['oracle'] else ''}</h2>"
        yield f'<div class="card">{_table(result)}</div>'
        sheet, matrix = run.picture(result), run.picture(result, "confusion_")
        if sheet:
            yield f'<div class="card">{_image(sheet, "evaluated pictures")}</div>'
        if matrix:
            drawing = _image(matrix, "confusion, in per cent of each true class", caption=True)
            yield f'<div class="card">{drawing}</div>'


def _table(result: dict) -> str:
    readouts, classes, there = result["readouts"], result["classes"], set(result["classes_present"])
    colours = palette(len(classes), result["background"])
    head = "".join(f"<th>{escape(_title(name))}</th>" for name in readouts)
    rows = [
        _row(name, [values["iou"][name] for values in readouts.values()], colours[number], name in there)
        for number, name in enumerate(classes)
    ]
    rows.append(_row("mean of all classes", [values["miou"] for values in readouts.values()], None, True))
    return (
        f'<div class="scroll"><table><tr><th>class</th>{head}</tr>{"".join(rows)}</table></div>'
        f'<p class="soft">{escape(_notes(result))}</p>'
    )


def _notes(result: dict) -> str:
    readouts = result["readouts"].items()
    accuracy = ", ".join(
        f"{_title(name)} {100 * values['pixel_accuracy']:.1f} %" for name, values in readouts
    )
    notes = [f"Intersection over union in per cent, counted over {result['images']:,} pictures."]
    notes += [f"Pixels that are right: {accuracy}."]
    notes += [
        f"The {_title(name)} are searched among {values['prototypes']:,} training prototypes labelled "
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
    label = escape(name) + ("" if there else " (not in this split)")
    return f'<tr class="{kind}"><td>{swatch}{label}</td>{cells}</tr>'


def _training(run: RunFolder) -> Iterable[str]:
    drawn = curves(run.steps)
    if drawn:
        cards = "".join(f'<div class="card"><h3>{escape(title)}</h3>{svg}</div>' for title, svg in drawn)
        yield f'<h2>Training</h2><div class="grid">{cards}</div>'
    shown = run.previews
    if shown:
        picked = dict.fromkeys([shown[0], shown[(len(shown) - 1) // 2], shown[-1]])
        figures = "".join(_image(path, path.stem.replace("_", " "), caption=True) for path in picked)
        yield f'<h2>While it learned</h2><div class="card">{figures}</div>'


def _settings(run: RunFolder) -> Iterable[str]:
    if run.config_text:
        yield "<h2>Configuration</h2>"
        text = f"<details><summary>config.yaml</summary><pre>{escape(run.config_text)}</pre></details>"
        yield f'<div class="card">{text}</div>'


def _image(path: Path, name: str, caption: bool = False) -> str:
    # As WebP the same picture takes a fifth of the bytes of its PNG.
    encoded = cv2.imencode(".webp", cv2.imread(str(path)), [cv2.IMWRITE_WEBP_QUALITY, 88])[1]
    data = base64.b64encode(encoded.tobytes()).decode()
    text = f"<figcaption>{escape(name)}</figcaption>" if caption else ""
    return f'<figure>{text}<img alt="{escape(name)}" src="data:image/webp;base64,{data}"></figure>'


def _title(readout: str) -> str:
    return "neighbours (oracle)" if readout == "neighbours_oracle" else readout


def _setting(config: dict, key: str):
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config
