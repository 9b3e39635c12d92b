"""How fast a collection answers: an index of generated segments, opened and asked, beside FAISS and LanceDB.

    python -m benchmarks.retrieval --json OUT                      # 1,000,000 rows
    python -m benchmarks.retrieval --rows 10000000 --json OUT      # is it built in bounded memory?
    python -m benchmarks.retrieval --index index/gid15 --json OUT  # rows of an index that is there

Every row asks one query at a time for its K nearest: the index without a filter, with one that passes about
half and one that passes few, through the page's endpoint, and the same vectors in a plain flat FAISS index
and in LanceDB (pip install 'spml-dist[benchmarks]'), which stands for a vector data base.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spml_dist import tables
from spml_dist.retrieval import layout, vector_index
from spml_dist.retrieval.assemble import Source, assemble
from spml_dist.retrieval.collection import open_index
from spml_dist.retrieval.filters import Filter
from spml_dist.retrieval.rows import Pack, schema
from spml_dist.retrieval.segment_index import Search, SegmentIndex

DIM, CLASSES, A_PICTURE, MIDDLES = 64, 20, 30, 4000
K, QUERIES, CONNECTIONS = 20, 500, 8
CHUNK = 30_000
LISTS = 1024
"""of LanceDB's inverted file"""
GENERATED = "generated"
FILTERS = {
    "none": Filter(),
    "half": Filter(tags="c0 or c1 or c2", least_area=0.005),
    "few": Filter(classes=("c3",), tags="c4 and not c5"),
}
KEYS = ("rows", "filter", "recall", "p50_ms", "p99_ms", "qps", "bytes_per_row", "open_s")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="generated segments (default: 1,000,000)")
    parser.add_argument("--index", type=Path, help="an index that is there, instead of generated segments")
    parser.add_argument("--queries", type=int, default=QUERIES, help=f"default: {QUERIES}")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.index or _generated(Path(scratch) / "index", args.rows)
        rows = []
        for row in _measured(folder, args.queries):
            print(f"{row['what']}, {row['filter']}: {row['p50_ms']} ms", file=sys.stderr, flush=True)
            rows.append(row)
        print(
            tables.table(
                ("what", *KEYS), [(row["what"], *map(_shown, (row[key] for key in KEYS))) for row in rows]
            )
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"largest memory of this process, building and flat FAISS in it: {peak:.1f} GB")
        if args.json:
            args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def generated(rows: int, seed: int = 0) -> Iterator[Source]:
    """Unit vectors around MIDDLES directions, and what an index holds of segments beside them."""
    middles = np.random.default_rng(seed).normal(size=(MIDDLES, DIM)).astype(np.float32)
    columns = schema(CLASSES)
    for start in range(0, rows, CHUNK):
        random = np.random.default_rng((seed, start))
        count = min(CHUNK, rows - start)
        middle = random.integers(0, MIDDLES, count)
        vectors = middles[middle] + 0.6 * random.normal(size=(count, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        picture = np.arange(start, start + count) // A_PICTURE
        tags = np.packbits(random.random((count // A_PICTURE + 1, CLASSES)) < 0.2, axis=1, bitorder="little")
        label = np.where(random.random(count) < 0.3, middle % CLASSES, -1)
        box = random.integers(0, 200, (count, 2))
        values = {
            **{"pack": np.zeros(count, int), "shard": picture // 256, "place": picture % 256},
            **{
                "key": [f"{number:08d}" for number in picture],
                "segment": np.arange(start, start + count) % A_PICTURE,
            },
            **{"x0": box[:, 0], "y0": box[:, 1], "x1": box[:, 0] + 60, "y1": box[:, 1] + 60},
            **{
                "area": random.random(count) / A_PICTURE,
                "height": np.full(count, 375),
                "width": np.full(count, 500),
            },
            **{
                "grid_height": np.full(count, 94),
                "grid_width": np.full(count, 125),
                "outline": [_OUTLINE] * count,
            },
            **{"label": label, "source": (label >= 0).astype(int), "confidence": np.ones(count)},
            **{"predicted": middle % CLASSES, "tags": [tags[p - picture[0]].tobytes() for p in picture]},
            "tags_known": np.ones(count, int),
        }
        arrays = [pa.array(values[name], columns.field(name).type, safe=False) for name in columns.names]
        yield vectors.astype(np.float16), pa.table(arrays, schema=columns)


def _outline() -> bytes:
    from spml_dist.retrieval.outlines import encode

    cells = np.full((94, 125), -1)
    y, x = np.mgrid[:94, :125]
    cells[(y - 40) ** 2 + (x - 60) ** 2 + 30 * np.sin(x) * np.cos(y) < 150] = 0
    return encode(cells, 1)[0]


_OUTLINE = _outline()


def _generated(folder: Path, rows: int) -> Path:
    """Built by a process of its own, whose memory is told."""
    code = f"from benchmarks.retrieval import build; build({str(folder)!r}, {rows})"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    print(f"built in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return folder


def build(folder: str, rows: int) -> None:
    """An index of generated segments; prints the largest memory of this process."""
    with layout.building(Path(folder)) as unfinished:
        shards = tuple(f"t-{number:06d}.tar" for number in range(rows // A_PICTURE // 256 + 1))
        packs = [Pack(GENERATED, folder, shards, shards)]
        facts = {"run": folder, "model": "0" * 64, "step": 0, "background": None, "lacks": {}}
        facts["cut"] = {"longer_side": None, "grid": [12, 12], "iterations": 10}
        classes = [f"c{number}" for number in range(CLASSES)]
        assemble(unfinished / layout.WHOLE, lambda: generated(rows), rows, DIM, packs, classes, facts)
        layout.finish(Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"largest memory of the build: {peak:.1f} GB")


def _measured(folder: Path, queries: int) -> Iterator[dict[str, Any]]:
    open_s, resident = _opened(folder)
    print(f"opened in {open_s:.2f} s, {resident:.0f} MB more resident", file=sys.stderr)
    collection = open_index(folder)
    index = collection.index
    size = sum(file["bytes"] for file in index.infos["files"].values()) / len(index)
    asked = np.random.default_rng(1).choice(len(index), min(queries, len(index)), replace=False)
    facts = {"rows": len(index), "bytes_per_row": round(size, 1), "open_s": round(open_s, 3)}
    facts["open_resident_mb"] = round(resident)
    is_generated = index.packs[0].name == GENERATED  # only of these the filters' classes are known
    for name, chosen in FILTERS.items() if is_generated else [("none", Filter())]:
        index.search(index.vector(0), Search(K), chosen)  # a filter's rows are found once

        def ask(row: int, chosen: Filter = chosen) -> np.ndarray:
            return index.search(index.vector(row), Search(K), chosen)[1]

        passes = index.count(chosen) / len(index)
        label = f"{name} ({passes:.1%})" if name != "none" else name
        yield _row("spml-dist", label, ask, asked, lambda rows, c=chosen: _truth(index, rows, c)) | facts
    yield _endpoint(folder, asked) | facts
    yield from _plain(index, asked)


def _opened(folder: Path) -> tuple[float, float]:
    """(seconds, MB) that opening takes in a fresh process whose packages are loaded."""
    code = (
        "import time, psutil; from spml_dist.retrieval.collection import open_index\n"
        "import faiss, pyarrow.parquet\n"
        "p = psutil.Process(); before = p.memory_info().rss; t = time.perf_counter()\n"
        f"c = open_index({str(folder)!r})\n"
        "print(time.perf_counter() - t, (p.memory_info().rss - before) / 1e6)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


def _truth(index: SegmentIndex, rows: np.ndarray, chosen: Filter) -> list[np.ndarray]:
    allowed, few = index._allowed(chosen)
    if few is None:
        few = np.arange(len(index))
        if allowed is not None:
            few = np.flatnonzero(np.unpackbits(allowed, bitorder="little", count=len(index)))
    vectors = index.vectors if len(few) == len(index) else index.vectors[few]
    return [few[each] for each in vector_index.exact(vectors, index.vectors[rows].astype(np.float32), K)]


def _row(
    what: str, name: str, ask: Callable[[int], np.ndarray], rows: np.ndarray, truth: Callable
) -> dict[str, Any]:
    """Latency of one query after another, and how many of the true nearest they find."""
    for row in rows[:20]:
        ask(int(row))
    seconds, found = [], []
    for row in rows:
        begin = time.perf_counter()
        found.append(ask(int(row)))
        seconds.append(time.perf_counter() - begin)
    some = rows[:200]
    recall = np.mean(
        [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth(some), strict=False) if len(b)]
    )
    p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
    numbers = {"recall": round(float(recall), 4), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    return {"what": what, "filter": name, **numbers, "qps": round(len(rows) / sum(seconds), 1)}


def _endpoint(folder: Path, rows: np.ndarray) -> dict[str, Any]:
    """The page's endpoint from CONNECTIONS connections; server and clients are a process each."""
    words = [sys.executable, "-m", "spml_dist", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline().rpartition(":")[2])
            _asked(port, rows[:64])
            begin = time.perf_counter()
            seconds = _asked(port, rows)
            spent = time.perf_counter() - begin
        finally:
            server.terminate()
    p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
    numbers = {"recall": None, "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    what = f"page, {CONNECTIONS} connections"
    return {"what": what, "filter": "none", **numbers, "qps": round(len(rows) / spent, 1)}


def _asked(port: int, rows: np.ndarray) -> list[float]:
    """Seconds of each request; the rows are dealt to CONNECTIONS clients."""
    seconds: list[float] = []

    def client(part: np.ndarray) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            for row in part:
                begin = time.perf_counter()
                connection.request("GET", f"/api/neighbours?segment={row}&k={K}")
                answer = connection.getresponse()
                content = answer.read()
                seconds.append(time.perf_counter() - begin)
                assert answer.status == 200 and len(json.loads(content)["neighbours"]) == K

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(client, np.array_split(rows, CONNECTIONS)))
    return seconds


def _plain(index: SegmentIndex, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """The same vectors in a flat FAISS index and in LanceDB."""
    import faiss

    vectors = index.vectors[:].astype(np.float32)
    truth = lambda some: _truth(index, some, Filter())  # noqa: E731
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    facts = {"rows": len(vectors), "bytes_per_row": 4 * vectors.shape[1], "open_s": None}
    yield (
        _row("FAISS, flat", "none", lambda row: flat.search(vectors[row][None], K)[1][0], rows, truth) | facts
    )
    flat.reset()
    if importlib.util.find_spec("lancedb") is None:
        print("no row for LanceDB: pip install 'spml-dist[benchmarks]'", file=sys.stderr)
        return
    yield _lance(vectors, rows, truth, index.infos["probes"] or LISTS) | {"rows": len(vectors)}


def _lance(vectors: np.ndarray, rows: np.ndarray, truth: Callable, probes: int) -> dict[str, Any]:
    """A plain vector data base: an inverted file over the same vectors, as many lists searched."""
    import lancedb
    from lancedb.index import IvfFlat

    dim = vectors.shape[1]
    table = {"id": np.arange(len(vectors)), "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim)}
    with tempfile.TemporaryDirectory() as folder:
        made = lancedb.connect(folder).create_table("segments", pa.table(table))
        made.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=LISTS))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        begin = time.perf_counter()
        opened = lancedb.connect(folder).open_table("segments")
        facts = {
            "open_s": round(time.perf_counter() - begin, 3),
            "bytes_per_row": round(size / len(vectors), 1),
        }

        def ask(row: int) -> np.ndarray:
            query = opened.search(vectors[row]).distance_type("dot").nprobes(probes).limit(K)
            return query.select(["id", "_distance"]).to_arrow()["id"].to_numpy()

        return _row("LanceDB", "none", ask, rows, truth) | facts


def _shown(value: object) -> object:
    return "-" if value is None else value


if __name__ == "__main__":
    sys.exit(main())
