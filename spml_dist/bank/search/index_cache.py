"""When to index: building, feeding, measuring and retraining an inverted file over a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from spml_dist.bank.search.centroids import centroids
from spml_dist.bank.search.faiss_index import GpuInvertedFile, InvertedFile, InvertedLists, nearest_lists
from spml_dist.bank.search.filters import Kind
from spml_dist.bank.store import Store
from spml_dist.hashing import uniform

NEW_ROWS = 1 << 10
"""rows without a current entry at which they get one"""

POINTS = 16
"""rows a centroid is trained on"""

LISTS = 8
"""lists per square root of the rows: finding those to search takes about as long as searching them"""

PROBES = 8
"""lists searched for a query before recall asks for more"""

COPIED = 1 << 20
"""rows copied at a time"""

STATE = {
    "trained_on": "trained_on",
    "probes": "probes",
    "gauged": "recall_measured",
    "fell": "recall_fell",
    "changed": "rows_changed",
}
"""what a snapshot keeps beside the centroids: its names and those of the attributes"""


class Wear(NamedTuple):
    """What decides whether inverted files are made anew; of one rank, or summed over all."""

    rows: int
    changed: int = 0
    """rows written since the centroids were found"""
    poor: int = 0
    """files whose recall fell, or never was good for some kind"""


class IndexCache:
    """An inverted file over a store, which of its entries are current, and how widely each kind of query is
    searched.

    Rows without a current entry are searched exactly, so what is indexed may lag behind the rows.
    """

    def __init__(self, store: Store, middles: np.ndarray, trained_on: int | None = None):
        """middles: centroids, [lists, C] float32; trained_on: rows of all ranks, None = there is one rank."""
        self._store = store
        gpu = store.alive.device.index
        self.inverted: InvertedLists = InvertedFile(middles) if gpu is None else GpuInvertedFile(middles, gpu)
        self.trained_on = len(store) if trained_on is None else trained_on
        """rows that all ranks had when the centroids were found"""
        self.probes: dict[Kind, int] = {}
        self.recall_measured = False
        """since the centroids were found"""
        self.recall_fell = False
        """whether it was found too low after that"""
        self.rows_changed = 0
        """rows of the store written since the centroids were found"""
        self._current = np.zeros(len(store.alive), bool)

    @classmethod
    def of(cls, store: Store, seed: int, rows: int | None = None) -> IndexCache:
        """Trained on a fixed draw of the store's rows, with an entry for each of them. rows: of all ranks,
        None = there is one."""
        live = store.live()
        lists = max(1, min(len(live), round(LISTS * len(live) ** 0.5)))
        # Drawn and ordered by a hash of the row: which slots the rows are in makes no difference.
        draw = uniform(seed, 0, store.rows.image[live], store.rows.segment[live])
        chosen = live[torch.argsort(draw)[: POINTS * lists]]
        points = store.rows.vector[chosen].float().cpu().numpy()
        # A rank without rows has a file too, of one list: all have one or none.
        middles = centroids(points, lists, seed) if len(live) else np.zeros((1, points.shape[1]), np.float32)
        cache = cls(store, middles, rows)
        cache.update()
        return cache

    def current(self, used: int) -> np.ndarray:
        """[used] bool: slots whose entry is that of the row in them."""
        return self._current[:used]

    def invalidate(self, slots: np.ndarray) -> None:
        """Other rows are in these slots now."""
        self._current[slots] = False
        self.rows_changed += len(slots)

    def upkeep(self) -> None:
        """Give new rows their entries once they are many."""
        if self.inverted.crowded:
            # Old entries are fetched only to be dropped: from here on writing all anew costs less.
            self.inverted.clear()
            self._current[:] = False
        alive = self._store.alive[: self._store.used].cpu().numpy()
        if np.count_nonzero(alive & ~self.current(self._store.used)) >= NEW_ROWS:
            self.update()

    def update(self, but: np.ndarray | None = None) -> None:
        """Every row that is not current gets an entry. but: [used] bool, rows that stay without."""
        store, known = self._store, len(self.inverted)
        alive = store.alive[: store.used].cpu().numpy()
        new = alive & ~self.current(store.used)
        if but is not None:
            new &= ~but
        again = np.flatnonzero(new[:known])
        self.inverted.replace(again, self._vectors(again))
        # Entries are numbered by slot, so slots without a row get one too; it is never current.
        for start in range(known, store.used, COPIED):
            self.inverted.extend(self._vectors(slice(start, min(start + COPIED, store.used))))
        self._current[: store.used] |= new

    @property
    def wear(self) -> Wear:
        """Of this rank."""
        poor = self.recall_fell or any(map(self.prefers_exact, self.probes))
        return Wear(len(self._store), self.rows_changed, poor)

    def outdated(self, wear: Wear) -> bool:
        """Whether other centroids are due: rows are twice as many as they were found for, or some file is
        poor and half of the rows are others. wear: of all ranks."""
        return wear.rows > 2 * self.trained_on or (wear.poor > 0 and 2 * wear.changed > self.trained_on)

    def state(self) -> dict[str, Any]:
        """What cannot be derived from the rows and the centroids."""
        return {name: getattr(self, attribute) for name, attribute in STATE.items()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, attribute in STATE.items():
            setattr(self, attribute, state[name])

    def probed(self, queries: np.ndarray, kinds: Sequence[Kind]) -> dict[Kind, tuple[np.ndarray, np.ndarray]]:
        """The lists to search for each kind, found once for all of them."""
        probes = {kind: min(self.probes.get(kind, PROBES), self.inverted.lists) for kind in kinds}
        most = max(probes.values(), default=1)
        values, lists = nearest_lists(self.inverted.centroids, queries, most)
        return {kind: (values[:, :n], lists[:, :n]) for kind, n in probes.items()}

    def prefers_exact(self, kind: Kind, share: float = 1) -> bool:
        """Whether a kind needs so many lists that comparing the share of rows that passes is no slower."""
        return self.probes.get(kind, PROBES) > max(PROBES, share * self.inverted.lists / 4)

    def widen(self, kind: Kind) -> None:
        """Search twice as many lists for a kind from now on."""
        self.recall_fell |= self.recall_measured
        self.probes[kind] = 2 * self.probes.get(kind, PROBES)

    def _vectors(self, slots: np.ndarray | slice) -> np.ndarray:
        return self._store.rows.vector[slots].float().cpu().numpy()
