"""Charts: training curves as SVG that takes its ink from the page, and the confusion matrix as a picture."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# matplotlib wants a colour; this one is replaced by the page's own text colour.
_INK = "#123457"
_LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C1450", "#78B43C", "#7864C8")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spml-dist",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """One drawing of the training log."""

    title: str
    select: Callable[[str], bool]
    """which keys of a logged step are drawn"""
    stacked: bool = False


CHARTS = (
    Chart("Loss", lambda key: key == "loss"),
    Chart("Loss by term", lambda key: key.startswith("loss/")),
    Chart("Learning rate", lambda key: key == "lr"),
    Chart("Pixels without a positive", lambda key: key.split("/")[0] == "pixels_without_positive"),
    Chart("Images a second", lambda key: key == "images_per_s"),
    Chart("Seconds a step, by phase", lambda key: key.startswith("time/"), stacked=True),
    Chart("Memory, MB", lambda key: key.split("/")[0] == "memory_mb"),
)


def curves(steps: Sequence[dict]) -> list[tuple[str, str]]:
    """(title, inline SVG) of every chart for which the log has at least one finite number.

    steps: objects of the training log in order, each with `step`; other keys may be missing.
    """
    drawn = []
    for chart in CHARTS:
        keys = sorted({key for row in steps for key in row if chart.select(key)})
        series = {key: _series(steps, key) for key in keys}
        series = {key: points for key, points in series.items() if len(points)}
        if series:
            drawn.append((chart.title, _svg(chart, series)))
    return drawn


def confusion_picture(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> np.ndarray:
    """A confusion matrix with rows in per cent of the true class, [H, W, 3] uint8 RGB."""
    matrix = np.asarray(counts, np.float64)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.42 * len(classes)
    with matplotlib.rc_context({"font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(*share.shape):
            if share[row, column] >= 0.5:
                ink = "white" if share[row, column] > 55 else "#222"
                axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=ink)
        axes.set_xticks(range(len(classes)), classes, rotation=50, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted", ylabel="truth")
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return _pixels(figure)


def _series(steps: Sequence[dict], key: str) -> np.ndarray:
    points = [(row["step"], row[key]) for row in steps if isinstance(row.get(key), int | float)]
    return np.array([point for point in points if math.isfinite(point[1])], np.float64)


def _svg(chart: Chart, series: dict[str, np.ndarray]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        axes = figure.add_subplot()
        names = [key.partition("/")[2].replace("_", " ") or key for key in series]
        if chart.stacked:
            _stack(axes, series, names)
        else:
            for points, name, colour in zip(series.values(), names, _cycle(len(names)), strict=True):
                _line(axes, points, name, colour)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.margins(x=0.01)
        if len(names) > 1:
            figure.legend(loc="outside lower center", ncols=min(len(names), 3), fontsize=8, handlelength=1.2)
        return _inline(figure)


def _line(axes, points: np.ndarray, name: str, colour: str) -> None:
    """The numbers themselves, pale where there are many, and their running mean."""
    step, value = points.T
    width = max(1, len(value) // 40)
    if width > 1:
        axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.8)
    padded = np.pad(value, (width // 2, width - 1 - width // 2), mode="edge")
    marker = "o" if len(value) == 1 else None
    mean = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    axes.plot(step, mean, color=colour, linewidth=1.6, label=name, marker=marker)


def _stack(axes, series: dict[str, np.ndarray], names: list[str]) -> None:
    step = np.unique(np.concatenate([points[:, 0] for points in series.values()]))
    layers = [np.interp(step, *points.T) for points in series.values()]
    axes.stackplot(step, layers, labels=names, colors=_cycle(len(names)), alpha=0.85, linewidth=0)


def _cycle(count: int) -> list[str]:
    return [_LINES[number % len(_LINES)] for number in range(count)]


def _inline(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', "", svg, count=1)


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
