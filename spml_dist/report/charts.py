"""Charts: curves, bars and confusion matrices, as SVG that takes its ink from the page or as pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from spml_dist.report.curves import Curves

# matplotlib wants a colour; this one is replaced by the page's own text colour.
_INK = "#1f2329"
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
_STYLE: dict[Any, Any] = {
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
        figure = Figure(figsize=(4.1, 2.5), layout="constrained")
        axes = figure.add_subplot()
        colours = [
            _COLOURS.get(name, _LINES[number % len(_LINES)]) for number, name in enumerate(curves.series)
        ]
        if curves.stacked:
            _stack(axes, curves.series, colours)
        else:
            for (name, points), colour in zip(curves.series.items(), colours, strict=True):
                _line(axes, points, name, colour)
        places = np.unique(np.concatenate([points[:, 0] for points in curves.series.values()]))
        axes.xaxis.set_major_locator(
            MaxNLocator(5, integer=curves.across == "step")
            if len(places) > 1
            else FixedLocator(places.tolist())
        )
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.margins(x=0.01, y=0.08)
        axes.set_ylim(bottom=min(0, axes.dataLim.y0))
        axes.set_xlabel(curves.across, fontsize=8, alpha=0.7, loc="right")
        if len(curves.series) > 1:
            figure.legend(loc="outside upper left", ncols=3, fontsize=8, handlelength=1.1, columnspacing=1.2)
        return re.sub(r'(width|height)="[\d.]+pt" ?', "", svg(figure), count=2)


def confusion_figure(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix: rows are true classes, in per cent of each; columns what was predicted.

    counts: [K, K] pixels. A cell below half a per cent stays empty.
    """
    pixels = np.asarray(counts, np.float64)
    share = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    side = 0.36 * len(classes)
    with matplotlib.rc_context(_STYLE | {"axes.grid": False, "font.size": 8}):
        figure = Figure(figsize=(side + 1.5, side + 1.5), layout="constrained")
        axes = figure.add_subplot()
        for row, column in np.argwhere(share >= 0.005):
            value = share[row, column]
            cell = Rectangle((column - 0.5, row - 0.5), 1, 1, color=_LINES[0], alpha=value, linewidth=0)
            axes.add_patch(cell)
            ink = "white" if value > 0.55 else _INK
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=ink)
        edges = np.arange(len(classes) + 1) - 0.5
        axes.hlines(edges, edges[0], edges[-1], color=_INK, alpha=0.15, linewidth=0.5)
        axes.vlines(edges, edges[0], edges[-1], color=_INK, alpha=0.15, linewidth=0.5)
        axes.set_xticks(range(len(classes)), classes, rotation=50, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted", ylabel="truth", aspect="equal")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(edges[-1], edges[0]))
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return figure


def share_figure(bars: Sequence[tuple[str, float, str]]) -> Figure:
    """Shares as bars below one another, in per cent. bars: name, share of 1, group of one colour."""
    groups = list(dict.fromkeys(group for *_, group in bars))
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(6.4, 0.3 * len(bars) + 0.7), layout="constrained")
        axes = figure.add_subplot()
        for number, group in enumerate(groups):
            rows = [row for row, bar in enumerate(bars) if bar[2] == group]
            lengths = [100 * bars[row][1] for row in rows]
            axes.barh(rows, lengths, height=0.66, color=_LINES[number % len(_LINES)], label=group)
            for row, length in zip(rows, lengths, strict=True):
                axes.text(length + 0.8, row, f"{length:.1f}", va="center", fontsize=8)
        axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
        axes.set(xlim=(0, 108), ylim=(len(bars) - 0.4, -0.6))
        axes.set_xlabel("mIoU, %", fontsize=8, alpha=0.7, loc="right")
        axes.tick_params(length=0)
        figure.legend(loc="outside upper left", ncols=3, fontsize=8, handlelength=1.1)
        return figure


def svg(figure: Figure) -> str:
    """For a page: text is text, and what is drawn in ink takes the page's text colour."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)


def picture(figure: Figure, dots_per_inch: int = 110) -> np.ndarray:
    """For a file: [H, W, 3] uint8 RGB on white."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


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
