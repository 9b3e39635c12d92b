"""When to index: building, feeding, gauging and retraining an inverted file over a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spml_dist.bank.search.faiss_index import Appended, Inverted, centroids
from spml_dist.bank.search.filters import Kind
from spml_dist.bank.store import Store
from spml_dist.hashing import uniform

NEW = 1 << 10
"""rows that the inverted file does not know yet at which it is told of them"""

POINTS = 16
"""rows a centroid is trained on"""

LISTS = 8
"""lists per square root of the rows: finding those to search takes about as long as searching them"""

PROBES = 8
"""lists searched for a query before recall says otherwise"""

TOLD = 1 << 20
"""rows copied at a time"""

STATE = ("trained_on", "probes", "gauged", "fell", "changed")


class Cache:
    """An inverted file over a store, which of its entries are current, and how widely each kind of query is
    searched."""

    def __init__(self, store: Store, middles: np.ndarray):
        """middles: centroids, [lists, C] float32."""
        self._store = store
        gpu = store.alive.device.index
        self.inverted = Inverted(middles) if gpu is None else Appended(middles, gpu)
        self.trained_on = len(store)
        """rows there were when the centroids were found"""
        self.probes: dict[Kind, int] = {}
        self.gauged = False
        """whether recall was measured since the centroids were found"""
        self.fell = False
        """whether it was found too low after that"""
        self.changed = 0
        """rows written since the centroids were found"""
        self._current = np.zeros(len(store.alive), bool)

    @classmethod
    def of(cls, store: Store, seed: int) -> Cache:
        """Trained on a fixed draw of the store's rows, and told of all of them."""
        live = store.live()
        lists = max(1, min(len(live), round(LISTS * len(live) ** 0.5)))
        draw = uniform(seed, 0, store.rows.image[live], store.rows.segment[live])
        chosen = live[torch.argsort(draw)[: POINTS * lists]]
        points = store.rows.vector[chosen].float().cpu().numpy()
        made = cls(store, centroids(points, lists, seed))
        made.tell()
        return made

    def current(self, used: int) -> np.ndarray:
        """[used] bool: slots whose entry is that of the row in them."""
        return self._current[:used]

    def overwritten(self, slots: np.ndarray) -> None:
        """Other rows are in these slots now."""
        self._current[slots] = False
        self.changed += len(slots)

    def upkeep(self) -> None:
        """Tell the inverted file of new rows once they are many."""
        if isinstance(self.inverted, Appended) and self.inverted.crowded:
            self.inverted.clear()
            self._current[:] = False
        alive = self._store.alive[: self._store.used].cpu().numpy()
        if np.count_nonzero(alive & ~self.current(self._store.used)) >= NEW:
            self.tell()

    def tell(self, but: np.ndarray | None = None) -> None:
        """Every row that is not current gets an entry. but: [used] bool, rows that stay unknown."""
        store, known = self._store, len(self.inverted)
        alive = store.alive[: store.used].cpu().numpy()
        new = alive & ~self.current(store.used)
        if but is not None:
            new &= ~but
        again = np.flatnonzero(new[:known])
        self.inverted.replace(again, self._vectors(again))
        for start in range(known, store.used, TOLD):
            self.inverted.extend(self._vectors(slice(start, min(start + TOLD, store.used))))
        self._current[: store.used] |= new

    @property
    def worn(self) -> bool:
        """Whether other centroids are due: rows are twice as many as they were found for, or recall fell, or
        never was good for some kind, and half of the rows are others."""
        poor = self.fell or any(map(self.exhausted, self.probes))
        return len(self._store) > 2 * self.trained_on or (poor and 2 * self.changed > self.trained_on)

    def state(self) -> dict:
        """What cannot be told from the rows and the centroids."""
        return {name: getattr(self, name) for name in STATE}

    def resume(self, state: dict) -> None:
        """Go on from what `state` returned."""
        for name in STATE:
            setattr(self, name, state[name])

    def probed(self, queries: np.ndarray, kinds: Sequence[Kind]) -> dict[Kind, tuple[np.ndarray, np.ndarray]]:
        """The lists to search for each kind, found once for all of them."""
        probes = {kind: min(self.probes.get(kind, PROBES), self.inverted.lists) for kind in kinds}
        near, lists = self.inverted.probed(queries, max(probes.values(), default=1))
        return {kind: (near[:, :n], lists[:, :n]) for kind, n in probes.items()}

    def fetched(self, queries: np.ndarray, kinds: Sequence[Kind], depth: int) -> np.ndarray:
        """What an `Appended` file proposes to all kinds at once, searched as widely as any of them needs."""
        return self.inverted.search(queries, depth, max(self.probes.get(kind, PROBES) for kind in kinds))

    def exhausted(self, kind: Kind, share: float = 1) -> bool:
        """Whether a kind needs so many lists that comparing the share of rows that passes is no slower."""
        return self.probes.get(kind, PROBES) > max(PROBES, share * self.inverted.lists / 4)

    def widen(self, kind: Kind) -> None:
        """Search twice as many lists for a kind from now on."""
        self.fell |= self.gauged
        self.probes[kind] = 2 * self.probes.get(kind, PROBES)

    def _vectors(self, slots: np.ndarray | slice) -> np.ndarray:
        return self._store.rows.vector[slots].float().cpu().numpy()
