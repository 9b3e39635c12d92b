"""Drawings: curves as SVG that takes its ink from the page, and the confusion matrix as an image."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spml_dist.report.curves import Curves

# matplotlib wants a colour; this one is replaced by the page's own text colour.
_INK = "#123457"
_LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C1450", "#78B43C", "#7864C8")
_COLOURS = {
    "total": "#7864C8",
    "annotation": "#0072B2",
    "cooccurrence": "#E69F00",
    "image similarity": "#009E73",
    "feature affinity": "#CC79A7",
    "cross entropy": "#D55E00",
    "data": "#56B4E9",
    "forward": "#0072B2",
    "loss": "#E69F00",
    "backward": "#009E73",
    "optimizer": "#D55E00",
    "bank": "#CC79A7",
    "encoder": "#8C1450",
    "other": "#8A94A3",
}
"""a relation, and a phase, has the same colour in all charts"""
_BINS = 300
"""points of a drawn line at most; a longer log is averaged"""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spml-dist",
    "path.simplify_threshold": 0.2,
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


def draw(curves: Curves) -> str:
    """An inline SVG; the page gives title, width and text colour."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        colours = [
            _COLOURS.get(name, _LINES[number % len(_LINES)]) for number, name in enumerate(curves.series)
        ]
        if curves.stacked:
            _stack(axes, curves.series, colours)
        else:
            for (name, points), colour in zip(curves.series.items(), colours, strict=True):
                _line(axes, points, name, colour)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=curves.across == "step"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.margins(x=0.01, y=0.08)
        axes.set_ylim(bottom=min(0, axes.dataLim.y0))
        axes.set_xlabel(curves.across, fontsize=8, alpha=0.7, loc="right")
        if len(curves.series) > 1:
            figure.legend(loc="outside upper left", ncols=4, fontsize=8, handlelength=1.1, columnspacing=1.2)
        return _inline(figure)


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


def _line(axes, points: np.ndarray, name: str, colour: str) -> None:
    """The running mean, and pale behind it the numbers, or where they are too many their span."""
    bins = np.array_split(points, min(len(points), _BINS))
    step, value = np.array([part.mean(axis=0) for part in bins]).T
    if len(bins) < len(points):
        low, high = ([edge(part[:, 1]) for part in bins] for edge in (np.min, np.max))
        axes.fill_between(step, low, high, color=colour, alpha=0.18, linewidth=0)
    elif len(bins) >= 80:
        axes.plot(step, value, color=colour, alpha=0.3, linewidth=0.7)
    window = np.ones(max(1, len(value) // 40))
    counted = np.convolve(np.ones_like(value), window, mode="same")
    mean = np.convolve(value, window, mode="same") / counted
    marker = "o" if len(value) == 1 else None
    axes.plot(step, mean, color=colour, linewidth=1.6, label=name, marker=marker)


def _stack(axes, series: dict[str, np.ndarray], colours: list[str]) -> None:
    """Layers over the same steps; a rare peak, such as a checkpoint, may leave the chart."""
    bins = min(_BINS, *(len(points) for points in series.values()))
    parts = [np.array_split(points, bins) for points in series.values()]
    layers = np.array([[part.mean(axis=0) for part in each] for each in parts])
    axes.stackplot(
        layers[0, :, 0], layers[:, :, 1], labels=list(series), colors=colours, alpha=0.9, linewidth=0
    )
    axes.set_ylim(top=1.25 * np.percentile(layers[:, :, 1].sum(axis=0), 95) or None)


def _inline(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', "", svg, count=1)


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
