"""What queries found: as a table, JSON lines, Parquet, or a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spml_dist import tables
from spml_dist.errors import DataError, RunError
from spml_dist.files.write import replacing, write_text
from spml_dist.retrieval import outlines, pictures
from spml_dist.retrieval.collection import Answer, Collection
from spml_dist.retrieval.segment_index import Segment

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,  # names of classes and pictures come from the data
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def records(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """A row for each neighbour, plain data."""
    return [
        {"query": answer.query, "rank": rank, "similarity": each.similarity, **facts(each.segment)}
        for answer in answers
        for rank, each in enumerate(answer.neighbours, start=1)
    ]


def facts(segment: Segment) -> dict[str, Any]:
    """What is known of a segment, plain data."""
    return {
        "segment": segment.id,
        "row": segment.row,
        "pack": segment.pack,
        "key": segment.key,
        "number": segment.number,
        "box": list(segment.box),
        "area": segment.area,
        "class": segment.label,
        "source": segment.source,
        "confidence": segment.confidence,
        "predicted": segment.predicted,
        "tags": None if segment.tags is None else list(segment.tags),
    }


def table(answers: Sequence[Answer]) -> str:
    """For people: a line for each neighbour."""
    rows = [
        (f"{answer.query}", rank, f"{each.similarity:.3f}", each.segment.id, _class(each.segment))
        for answer in answers
        for rank, each in enumerate(answer.neighbours, start=1)
    ]
    nothing = [answer.query for answer in answers if not answer.neighbours]
    lines = [tables.table(("query", "rank", "similarity", "segment", "class"), rows)] if rows else []
    return "\n".join([*lines, *(f"{query}: no segment passes" for query in nothing)])


def json_lines(answers: Iterable[Answer]) -> str:
    """One JSON object a neighbour."""
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records(answers))


def write_parquet(answers: Iterable[Answer], path: Path) -> None:
    """Raises RunError for a place that cannot be written."""
    columns = pa.schema(
        {
            **{"query": pa.string(), "rank": pa.int32(), "similarity": pa.float32()},
            **{"segment": pa.string(), "row": pa.int64(), "pack": pa.string(), "key": pa.string()},
            **{"number": pa.int32(), "box": pa.list_(pa.int32()), "area": pa.float32()},
            **{"class": pa.string(), "source": pa.string(), "confidence": pa.float32()},
            **{"predicted": pa.string(), "tags": pa.list_(pa.string())},
        }
    )
    try:
        with replacing(path) as aside:
            pq.write_table(pa.Table.from_pylist(records(answers), schema=columns), aside)
    except OSError as problem:
        raise RunError(f"{path}: cannot be written", problem.strerror, "choose a writable place") from problem


def write_page(collection: Collection, answers: Sequence[Answer], path: Path) -> None:
    """One self-contained HTML file: each query and its neighbours drawn on their pictures.

    A picture that cannot be read is left away, with the reason in its place. Raises RunError as above.
    """
    shown = [
        {
            "name": answer.query,
            "card": _query_card(collection, answer),
            "cards": [
                card(collection, each.segment) | {"similarity": f"{each.similarity:.3f}"}
                for each in answer.neighbours
            ],
        }
        for answer in answers
    ]
    lacks = collection.index.infos["lacks"]
    page = TEMPLATES.get_template("answers.html").render(
        folder=str(collection.index.folder), answers=shown, lacks=lacks
    )
    write_text(path, page.strip() + "\n")


def card(collection: Collection, segment: Segment) -> dict[str, Any]:
    """A segment on its picture for a page."""
    height, width = segment.size
    shown = {"title": segment.id, "class": _class(segment), "width": width, "height": height}
    shown |= {"path": collection.index.path(segment), "tags": ", ".join(segment.tags or ())}
    try:
        _, jpeg = collection.index.pictures.read(*segment.place, segment.key)
    except DataError as problem:
        return shown | {"picture": None, "missing": str(problem)}
    return shown | {"picture": pictures.embedded(jpeg), "missing": None}


def _query_card(collection: Collection, answer: Answer) -> dict[str, Any] | None:
    if answer.segment is not None:
        return card(collection, answer.segment)
    if answer.image is None:
        return None
    pixels, segments, number = answer.image
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    height, width = segments.size
    path = outlines.path(segments.numbers == number, outlines.pixels(segments.geometry))
    predicted = collection.classes[segments.predicted[number]]
    shown = {"title": answer.query, "class": f"predicted {predicted}", "width": width, "height": height}
    return shown | {"path": path, "tags": "", "picture": pictures.embedded(jpeg), "missing": None}


def _class(segment: Segment) -> str:
    if segment.label is not None:
        sure = f" {segment.confidence:.0%}" if segment.confidence < 1 else ""
        return f"{segment.label} ({segment.source}{sure})"
    return f"predicted {segment.predicted}" if segment.predicted else "none"
