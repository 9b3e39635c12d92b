"""The page's addresses, and what each answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from spml_dist.errors import ConfigError, DataError, RunError, SpmlError
from spml_dist.retrieval import outlines
from spml_dist.retrieval.collection import Answer, Collection
from spml_dist.retrieval.filters import Filter
from spml_dist.retrieval.page.guard import Guard
from spml_dist.retrieval.page.uploads import LARGEST_BYTES, BusyError, Upload, Uploads
from spml_dist.retrieval.results import facts
from spml_dist.retrieval.segment_index import Search, Segment

FILES = Path(__file__).with_name("files")
KINDS = {"page.js": "text/javascript", "page.css": "text/css"}
MOST = 200
"""neighbours that the page shows at most"""
SHOWN = 24
"""pictures of the collection that are listed at a time"""


def application(collection: Collection, hosts: Sequence[str]) -> Starlette:
    """The page over a collection. hosts: names by which it may be called."""
    page = Page(collection)
    routes = [
        Route("/", lambda request: FileResponse(FILES / "page.html")),
        *(Route(f"/{name}", _file(name, kind)) for name, kind in KINDS.items()),
        Route("/api/collection", _json(page.about)),
        Route("/api/pictures", _json(page.listed)),
        Route("/api/picture/{row:int}", _json(page.picture)),
        Route("/api/neighbours", _json(page.neighbours)),
        Route("/api/upload", page.upload, methods=["POST"]),
        Route("/picture/{row:int}", page.jpeg),
    ]
    guards = [
        Middleware(Guard),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    errors: dict[Any, Callable] = {SpmlError: _mistake, HTTPException: _refused}
    return Starlette(routes=routes, middleware=guards, exception_handlers=errors)


class Page:
    """What the addresses answer, as plain data."""

    def __init__(self, collection: Collection):
        self._collection, self._index = collection, collection.index
        self._uploads = Uploads(collection)

    def about(self, request: Request) -> dict[str, Any]:
        index = self._index
        return {
            "segments": len(index),
            "pictures": len(self._pictures),
            "classes": list(index.classes),
            "packs": [pack.name for pack in index.packs],
            "lacks": index.infos["lacks"],
            "most": MOST,
        }

    def listed(self, request: Request) -> dict[str, Any]:
        """Some pictures: of a key that holds a text, from a place in the list on."""
        start = whole(request, "start", 0, 0, len(self._pictures))
        rows = self._pictures[start : start + SHOWN]
        shown = [{"row": int(row), "title": self._title(self._index.segment(int(row)))} for row in rows]
        return {"pictures": shown, "next": start + SHOWN if start + SHOWN < len(self._pictures) else None}

    def picture(self, request: Request) -> dict[str, Any]:
        """A picture of the collection with all its segments."""
        row = self._row(request)
        segments = [self._index.segment(int(each)) for each in self._index.of_picture(row)]
        first = segments[0]
        drawn = [self._drawn(each) | {"id": each.id, "class": _class(each)} for each in segments]
        size = {"height": first.size[0], "width": first.size[1], "tags": first.tags}
        return {"row": first.row, "title": self._title(first), **size, "segments": drawn}

    def neighbours(self, request: Request) -> dict[str, Any]:
        """The nearest segments of one of the collection, or of a picture that was dropped."""
        values = request.query_params
        search = Search(
            whole(request, "k", 20, 1, MOST),
            whole(request, "per_picture", 0, 0, MOST) or None,
            fraction(request, "least", -1.0),
        )
        chosen = Filter(tuple(values.getlist("only")), values.get("tags", "")[:1000])
        if "upload" in values:
            segments = self._uploads.get(values["upload"]).segments
            number = whole(request, "number", 0, 0, len(segments.vector) - 1)
            answer = self._collection.like_vector("dropped", segments.vector[number], search, chosen)
        else:
            row = self._index.row_of(values.get("segment", ""))
            # Nearly all neighbours are of the segment's own picture, which shows least.
            answer = self._collection.like_row(row, search, chosen, values.get("own") != "1")
        return self._answer(answer)

    async def upload(self, request: Request) -> Response:
        """A picture that is dropped: its segments, to be asked about by its token."""
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > LARGEST_BYTES:
                raise HTTPException(413, f"picture: larger than {LARGEST_BYTES // 1_000_000} MB; reduce it")
        try:
            upload = await run_in_threadpool(self._uploads.add, bytes(content))
        except BusyError:
            raise HTTPException(503, "other pictures are being looked at; try again in a moment") from None
        return JSONResponse(self._uploaded(upload))

    async def jpeg(self, request: Request) -> Response:
        """The picture of a row, as its shard holds it."""
        segment = self._index.segment(self._row(request))
        try:
            _, jpeg = await run_in_threadpool(self._index.pictures.read, *segment.place, segment.key)
        except DataError as problem:
            raise HTTPException(404, f"no picture: {problem}") from problem
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    @cached_property
    def _pictures(self) -> np.ndarray:
        """First row of each picture."""
        return np.flatnonzero(np.diff(self._index.picture, prepend=-1))

    def _row(self, request: Request) -> int:
        row = int(request.path_params["row"])
        if row >= len(self._index):
            raise HTTPException(404, f"no such row; the collection has {len(self._index):,}")
        return row

    def _answer(self, answer: Answer) -> dict[str, Any]:
        shown = [
            facts(each.segment)
            | self._drawn(each.segment)
            | {"similarity": each.similarity, "shown": _class(each.segment)}
            for each in answer.neighbours
        ]
        return {"query": answer.query, "row": answer.segment and answer.segment.row, "neighbours": shown}

    def _drawn(self, segment: Segment) -> dict[str, Any]:
        height, width = segment.size
        return {"row": segment.row, "path": self._index.path(segment), "height": height, "width": width}

    def _uploaded(self, upload: Upload) -> dict[str, Any]:
        segments = upload.segments
        height, width = segments.size
        where = outlines.pixels(segments.geometry)
        drawn = [
            {
                "number": number,
                "path": outlines.path(segments.numbers == number, where),
                "class": f"predicted {self._collection.classes[segments.predicted[number]]}",
            }
            for number in range(len(segments.vector))
        ]
        return {"upload": upload.token, "height": height, "width": width, "segments": drawn}

    def _title(self, segment: Segment) -> str:
        return f"{segment.pack}/{segment.key}"


def whole(request: Request, name: str, usual: int, least: int, most: int) -> int:
    """A whole number of a request's query. Raises ConfigError for another."""
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and least <= int(text) <= most):
        raise ConfigError(f"{name}: not a number that is taken", text[:40], f"give {least:,} to {most:,}")
    return int(text)


def fraction(request: Request, name: str, usual: float) -> float:
    """A number from -1 to 1 of a request's query. Raises ConfigError for another."""
    text = request.query_params.get(name, str(usual))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1 <= value <= 1:
        raise ConfigError(f"{name}: not a number that is taken", text[:40], "give -1 to 1")
    return value


def _class(segment: Segment) -> str:
    if segment.label is not None:
        return f"{segment.label} ({segment.source})"
    return f"predicted {segment.predicted}" if segment.predicted else "no class"


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    return lambda request: FileResponse(FILES / name, media_type=kind)


def _json(answer: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Any]:
    """Answers in a thread, so that searches run side by side."""

    async def respond(request: Request) -> Response:
        return await run_in_threadpool(lambda: JSONResponse(answer(request)))

    return respond


def _mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503 if isinstance(error, RunError) else 400)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
