"""The confusion matrix as a table of coloured cells, which stays sharp and can be pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WRITTEN = 22
"""classes up to which the cells have their numbers written in them"""


def matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> str:
    """HTML; rows are true classes, in per cent of each, and columns what was predicted.

    A cell's exact number shows when it is pointed at; with many classes only then.
    """
    pixels = np.asarray(counts, np.float64)
    share = 100 * pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    written = len(classes) <= WRITTEN
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in classes)
    rows = "".join(_row(name, line, classes, written) for name, line in zip(classes, share, strict=True))
    kind = "matrix" if written else "matrix dense"
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="scroll">'
        f'<table class="{kind}"><tr><td></td>{head}</tr>{rows}</table></div></figure>'
    )


def _row(truth: str, shares: np.ndarray, classes: Sequence[str], written: bool) -> str:
    cells = (_cell(value, truth, name, written) for value, name in zip(shares, classes, strict=True))
    return f"<tr><th>{escape(truth)}</th>{''.join(cells)}</tr>"


def _cell(value: float, truth: str, predicted: str, written: bool) -> str:
    if value < 0.5:
        return "<td></td>"
    tone = min(20, round(value / 5))
    told = escape(f"{truth} as {predicted}: {value:.1f} %", quote=True)
    return f'<td class="k{tone}" title="{told}">{f"{value:.0f}" if written else ""}</td>'
