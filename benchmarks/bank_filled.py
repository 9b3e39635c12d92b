"""A bank filled with a benchmark's rows, and the questions that it is asked."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.bank_rows import SHARDS, STORAGE, Source
from spml_dist import comm
from spml_dist.bank.exchange import merge_neighbours
from spml_dist.bank.rows import as_candidates
from spml_dist.bank.search.exact import SlotNeighbours, nearest, ranked
from spml_dist.bank.search.filters import Kind, Queries, segment_queries
from spml_dist.bank.search.lookup import _groups, lookup
from spml_dist.bank.search.recall import measure_recall
from spml_dist.bank.sharded import RECALL_EVERY, LookupPlan, ShardedBank
from spml_dist.config import load
from spml_dist.records import BankRows, Neighbours
from spml_dist.tensor_records import take

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
FILTERS: dict[str, Kind] = {
    "none": "any",
    "shares_tag": "shares_tag",
    "shares_none": "shares_none",
    "labelled": "labelled",
}
K = 16
MIN_RECALL = 0.993
"""what the measure_recall is asked for, which knows 64 queries: 0.99 of all is what is wanted"""


class Filled:
    """A bank that holds a source's rows, and the questions that it is asked."""

    def __init__(self, source: Source, say: Callable[[str], None]):
        self.source, self._say = source, say
        settings = load(CONFIG, []).bank.model_copy(
            update={
                "capacity": source.capacity(),
                "partitions": SHARDS,
                "storage": STORAGE,
                "own_images": False,
                "exact_rows": 0,
            }
        )
        plan = LookupPlan(tuple(FILTERS.values()), votes=False, ignore_classes=())
        before, _ = resident_bytes()
        self.bank = ShardedBank(settings, source.dim, source.classes, plan, 0, torch.device("cpu"))
        self.step = self.visit = 0
        self._before = before
        self.publish_all()
        wear = self.bank._settled()
        start = time.perf_counter()
        self.bank._upkeep(wear)
        self.build_s = most(time.perf_counter() - start)
        self.rows = int(total(len(self.bank)))
        self._measure_recall()

    def memory(self) -> tuple[float, float]:
        """Bytes a row, and megabytes of the largest worker's buffers."""
        resident, free = resident_bytes()
        return total(resident - self._before) / self.rows, most(free / 1e6)

    def publish_all(self) -> None:
        """Every image anew, in large batches, indexed and recall_measured as in training."""
        for rows in self.source.batches(self.visit):
            self.publish(rows)
            if self.visit:
                self.bank._upkeep(self.bank._settled())
                if self.step % RECALL_EVERY == 0:
                    self._measure_recall()
                    self.bank.report(self.step)
        self.visit += 1
        self._say(f"{int(total(len(self.bank)))} rows published, visit {self.visit}")

    def publish(self, rows: BankRows) -> None:
        self.bank.add(replace(rows, step=torch.full_like(rows.step, self.step)), ())
        self.bank.settle()
        self.step += 1

    def queries(self) -> tuple[Queries, Tensor]:
        """Images from all over the source as of the next visit, and which rows may answer them."""
        block = self.source.draw(self.source.blocks // 2, self.visit + 1000)
        rows = as_candidates(block, self.source.classes, torch.float32)
        store = self.bank.store
        eligible = store.alive[: store.used].clone()
        eligible[self.bank._own_slots(rows)] = False
        return segment_queries(rows, self.source.classes, ()), eligible

    def indexed(self, kind: Kind) -> SlotNeighbours:
        queries, eligible = self.asked
        return lookup(self.bank.store, self.bank.cache, queries, [kind], K, eligible)[kind]

    def masked(self, kind: Kind) -> SlotNeighbours:
        """Every row compared, by one product for all queries."""
        queries, eligible = self.asked
        return lookup(self.bank.store, None, queries, [kind], K, eligible)[kind]

    def gathered(self, kind: Kind) -> SlotNeighbours:
        """Every passing row compared, by a product for each group of queries with equal rights."""
        queries, eligible = self.asked
        slots = torch.full((len(queries), K), -1)
        for members, allowed in _groups(self.bank.store, queries, kind, eligible):
            some = take(queries, torch.from_numpy(members))
            passing = torch.from_numpy(np.flatnonzero(allowed))
            slots[members] = nearest(self.bank.store, some, ["any"], K, passing)["any"].slot
        return ranked(self.bank.store, queries, slots, K)

    def recall(self) -> dict[str, float]:
        """Share of the exact answers of all ranks that the index finds, by filter."""
        self.asked = self.queries()
        seen = {}
        for name, kind in FILTERS.items():
            found, exact = merge_neighbours(
                self.bank.store.rows, [way(kind) for way in (self.indexed, self.masked)]
            )
            seen[name] = hits(found, exact) / max(1, int((exact.segment >= 0).sum()))
        return seen

    def _measure_recall(self) -> None:
        queries, eligible = self.queries()
        kinds, bank = list(FILTERS.values()), self.bank
        measure_recall(bank.store, bank.cache, queries, kinds, K, eligible, MIN_RECALL)


def hits(found: Neighbours, exact: Neighbours) -> int:
    same = (found.image[:, :, None] == exact.image[:, None]) & (
        found.segment[:, :, None] == exact.segment[:, None]
    )
    return int((same & (exact.segment >= 0)[:, None]).sum())


def resident_bytes() -> tuple[int, int]:
    """Bytes of this process alone once free memory was handed back, and how much that was."""
    process = psutil.Process()
    before = process.memory_full_info().uss
    ctypes.CDLL(None).malloc_trim(0)
    after = process.memory_full_info().uss
    return after, before - after


def total(value: float) -> float:
    return sum(comm.from_every_rank(value))


def most(value: float) -> float:
    return max(comm.from_every_rank(value))
