"""Tables as the verbs print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A line of titles and one for each row: the first column to the left, the others to the right."""
    lines = [tuple(titles), *(tuple(map(str, row)) for row in rows)]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *map(str.rjust, cells, others)]).rstrip() for name, *cells in lines
    )


def facts(values: Mapping[str, object]) -> str:
    """A line for each value after its name."""
    width = max(map(len, values)) + 2
    return "\n".join(f"{name.ljust(width)}{value}" for name, value in values.items())
