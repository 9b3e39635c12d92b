"""The global bank beside exact search: `python -m benchmarks.bank --rows N --workers W --json OUT`.

`clustered` rows are noisy copies of 4,000 directions (the cosine between a copy and its direction is 0.8 on
average), 36 to an image; an image has each of 20 tags with probability 0.1, and a third of the rows are
annotated with the class of their direction. `real` rows are those of a snapshot (--snapshot: the bank folder
of a checkpoint), as many as there are. They fill a bank that is spread over fresh processes of one thread
each, which talk over gloo. 576 queries ask for their 16 nearest rows under every filter: 16 of the bank's
images, seen anew, whose old rows do not answer, as in training.

`lookup_ms` is everything from queries to merged answers, the slowest worker's time; `search_ms` its search,
`exchange_ms` what the exchange takes the last to arrive, `merge_ms` the rest. `exact_ms` is the same with
every passing row compared: by one product with all rows under a mask, or by gathering the passing rows of
each image first, whichever is faster. `publish_ms` is publish and settle of 16 images that replace their
predecessors, `upkeep_ms` what indexing them adds on average; `count_ms` and `draw_ms` are what
`nearest+sampled` asks of the whole bank at every step, `count_reading_ms` what counting by reading every row
takes. Then all images are published again, `--rounds`
times, in large batches, indexed and recall_measured by the bank's own rules, and recall is measured again.
`bytes_per_row` is the growth of the workers' unique set size (USS) from before the bank to after its index,
divided by the rows; free memory is handed back before (malloc_trim), and how much a worker had of it, which
its searches and large batches work in, is `buffers_mb`. Each time is a median of several repetitions with a
barrier before each. `--weak 1,2,4` then takes as many rows a worker to other worlds (`run: weak`);
where they are more than the cores, they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.bank_filled import FILTERS, Filled, K, most
from benchmarks.bank_rows import IMAGES, SEGMENTS, Source, clustered, real
from spml_dist import comm
from spml_dist.bank import exchange, sampling
from spml_dist.bank.counts import count
from spml_dist.bank.rows import as_candidates
from spml_dist.bank.search.exact import SlotNeighbours
from spml_dist.bank.search.filters import Kind, segment_queries
from spml_dist.bank.search.index_cache import PROBES
from spml_dist.bank.search.lookup import lookup
from spml_dist.records import BankRows
from spml_dist.tensor_records import take

PUBLISHES, LOOKUPS, EXACTS, PATIENCE = 21, 7, 5, 20.0
"""repetitions; seconds after which three are enough"""


@dataclass(frozen=True)
class Task:
    """What is measured on one number of workers."""

    run: str
    rows: int
    workers: int
    dim: int
    rounds: int
    snapshot: Path | None


def measured(task: Task) -> list[dict]:
    """This rank's part in measuring one number of workers; the figures, the same on every rank."""
    torch.set_num_threads(1)
    sources = [clustered(task.rows, task.dim)]
    if task.snapshot:
        sources.append(real(task.snapshot))
    Filled(clustered(4 * IMAGES * SEGMENTS, task.dim), lambda line: None).recall()  # libraries, buffers
    return [figure for source in sources for figure in _figures(task, source)]


def _figures(task: Task, source: Source) -> list[dict]:
    def say(line: str) -> None:
        if comm.rank() == 0:
            print(f"{source.data}, {task.workers} workers: {line}", file=sys.stderr, flush=True)

    filled = Filled(source, say)
    bytes_per_row, buffers = filled.memory()
    about = {
        "run": task.run,
        "rows": filled.rows,
        "workers": task.workers,
        "data": source.data,
        "dim": source.dim,
        "bytes_per_row": bytes_per_row,
        "buffers_mb": buffers,
        "build_s": filled.build_s,
        "lists": filled.bank.cache.inverted.lists,
    }
    say(f"{bytes_per_row:.0f} bytes a row, indexed in {filled.build_s:.1f} s")
    recall = filled.recall()
    figures = {name: _searched(filled, kind) for name, kind in FILTERS.items()}
    for name, figure in figures.items():
        probes = most(filled.bank.cache.probes.get(FILTERS[name], PROBES))
        figure |= {"recall": recall[name], "probes": probes}
        say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figure.items()))
    about |= _published(filled) | _whole(filled)
    say(f"a step counts all rows in {about['count_ms']:.4g} ms and draws some in {about['draw_ms']:.4g} ms")
    for _ in range(task.rounds):
        filled.publish_all()
    filled.bank.report(filled.step)  # and forget what was kept for it
    after = filled.recall() if task.rounds else dict.fromkeys(FILTERS)
    about |= {"rounds": task.rounds, "bytes_per_row_after_rounds": filled.memory()[0]}
    return [
        about | {"filter": name, **figure, "recall_after_rounds": after[name]}
        for name, figure in figures.items()
    ]


def _searched(filled: Filled, kind: Kind) -> dict:
    """Milliseconds of one filter, by the index and exactly."""
    with_index = _timed(filled, filled.indexed, kind, LOOKUPS)
    ways = [filled.masked] if kind == "any" else [filled.masked, filled.gathered]
    exact = min(_timed(filled, way, kind, EXACTS)["lookup_ms"] for way in ways)
    return with_index | {"exact_ms": exact, "ratio": exact / with_index["lookup_ms"]}


def _timed(
    filled: Filled, way: Callable[[Kind], SlotNeighbours], kind: Kind, repetitions: int
) -> dict[str, float]:
    """Median milliseconds from queries to merged answers, and of the parts."""
    turns, begun = [], time.perf_counter()
    while len(turns) < repetitions and (len(turns) < 3 or most(time.perf_counter() - begun) < PATIENCE):
        turns.append(_turn(filled, way, kind))
    names = ("lookup_ms", "search_ms", "exchange_ms", "merge_ms")
    return dict(zip(names, map(statistics.median, zip(*turns, strict=True)), strict=True))


def _turn(filled: Filled, way: Callable[[Kind], SlotNeighbours], kind: Kind) -> list[float]:
    spent = []

    def timed(collective: Callable) -> Callable:
        def timed_exchange(*arguments) -> list[Tensor]:
            start = time.perf_counter()
            received = collective(*arguments)
            spent.append(time.perf_counter() - start)
            return received

        return timed_exchange

    names = ("columns_of_share", "columns_of_all_shares")
    with patch.multiple(exchange, **{name: timed(getattr(exchange, name)) for name in names}):
        comm.barrier()
        start = time.perf_counter()
        found = way(kind)
        searched = time.perf_counter()
        exchange.merge_neighbours(filled.bank.store.rows, [found])
        end = time.perf_counter()
    whole, search, passed = end - start, searched - start, sum(spent)
    all_ranks = comm.from_every_rank([whole, search, passed, whole - search - passed])
    wholes, searches, exchanges, merges = zip(*all_ranks, strict=True)
    return [1e3 * each for each in (max(wholes), max(searches), min(exchanges), max(merges))]


def _published(filled: Filled) -> dict:
    """Milliseconds of publishing 16 images and of indexing them; whether they find themselves at once."""
    published, upkept, found = [], [], []
    for turn in range(PUBLISHES):
        block = filled.source.draw(turn % filled.source.blocks, 2_000 + turn)
        own = take(block, block.image % comm.world() == comm.rank())
        comm.barrier()
        start = time.perf_counter()
        filled.publish(own)
        done = time.perf_counter()
        found.append(_self_found(filled, block))
        again = time.perf_counter()
        filled.bank._upkeep(filled.bank._settled())
        published.append(1e3 * most(done - start))
        upkept.append(1e3 * most(time.perf_counter() - again))
    return {
        "publish_ms": statistics.median(published),
        "upkeep_ms": statistics.mean(upkept),
        "self_found": statistics.mean(found),
    }


def _whole(filled: Filled) -> dict:
    """Milliseconds of what `nearest+sampled` asks of the whole bank at every step: how many rows attract and
    repel, by class and by each image's tags, from the running counts and, to compare, by reading all rows;
    and drawing some."""
    bank, (queries, eligible) = filled.bank, filled.queries()
    kept, counted, drew = [], [], []
    for step in range(LOOKUPS):
        start = time.perf_counter()
        bank.store.counts.of(queries)
        kept.append(time.perf_counter() - start)
        start = time.perf_counter()
        count(bank.store.written_rows(), eligible, queries, bank.classes)
        counted.append(time.perf_counter() - start)
        start = time.perf_counter()
        sampling.draw_rows(bank.store, eligible.nonzero()[:, 0], (1e-3, 1e-3), bank.seed, step)
        drew.append(time.perf_counter() - start)
    return {
        f"{name}_ms": 1e3 * most(statistics.median(spent))
        for name, spent in (("count", kept), ("count_reading", counted), ("draw", drew))
    }


def _self_found(filled: Filled, rows: BankRows) -> float:
    """Share of rows that are the nearest to their own vectors, asked by an image that is not theirs."""
    candidates = as_candidates(rows, filled.source.classes, torch.float32)
    queries = replace(
        segment_queries(candidates, filled.bank.classes, ()), image=torch.zeros_like(rows.image)
    )
    store = filled.bank.store
    found = lookup(store, filled.bank.cache, queries, ["any"], K, store.alive[: store.used])["any"]
    (near,) = exchange.merge_neighbours(filled.bank.store.rows, [found])
    same = (near.image[:, 0] == rows.image) & (near.segment[:, 0] == rows.segment)
    return same.double().mean().item()


def _fresh(task: Task) -> list[dict]:
    """Measured by processes that did nothing before."""
    from spml_dist.cluster import WORKER_ENVIRONMENT

    os.environ |= WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (task, folder), task.workers)
        return json.loads((Path(folder) / "figures.json").read_text())


def _worker(rank: int, task: Task, folder: str) -> None:
    if task.workers > 1:
        place = f"file://{folder}/rendezvous"
        dist.init_process_group(
            "gloo", init_method=place, rank=rank, world_size=task.workers, timeout=timedelta(hours=1)
        )
    figures = measured(task)
    if rank == 0:
        (Path(folder) / "figures.json").write_text(json.dumps(figures))
    if task.workers > 1:
        dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--rows", type=int, required=True, help="of the clustered bank, over all workers")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10, help="times that all rows are replaced")
    parser.add_argument("--snapshot", type=Path, help="the bank folder of a checkpoint")
    parser.add_argument("--weak", help="then as many rows a worker on so many workers, for instance 1,2,4")
    args = parser.parse_args(argv)
    tasks = [Task("main", args.rows, args.workers, args.dim, args.rounds, args.snapshot)]
    for workers in map(int, args.weak.split(",") if args.weak else ()):
        tasks.append(Task("weak", args.rows // args.workers * workers, workers, args.dim, 0, None))
    columns = ("run", "workers", "data", "filter", "rows", "recall", "recall_after_rounds", "lookup_ms")
    columns += ("search_ms", "exchange_ms", "merge_ms", "exact_ms", "ratio", "publish_ms", "bytes_per_row")
    print("  ".join(f"{name:>11}" for name in columns))
    figures = []
    for task in tasks:
        for figure in _fresh(task):
            figures.append(figure)
            print("  ".join(f"{_cell(figure[name]):>11}" for name in columns), flush=True)
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _cell(value: str | float | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
