"""The global memory bank as one rank has it: its share of the rows, its part in every lookup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank import exchange, sampling, snapshot
from spml_dist.bank.candidates import choose
from spml_dist.bank.counts import RowCounts, count, difference
from spml_dist.bank.partitions import owned
from spml_dist.bank.rows import of_segments, unpack
from spml_dist.bank.search.filters import Kind, Queries, filter_columns, segment_queries
from spml_dist.bank.search.index_cache import IndexCache, Wear
from spml_dist.bank.search.lookup import lookup
from spml_dist.bank.search.recall import measure_recall
from spml_dist.bank.snapshot_copy import PartitionFile, SnapshotCopy
from spml_dist.bank.statistics import Statistics
from spml_dist.bank.store import Store
from spml_dist.bank.validate import refusal
from spml_dist.config.method_models import BankConfig
from spml_dist.errors import RunError
from spml_dist.records import BankCandidates, BankRows, BatchSegments, Candidates, Neighbours
from spml_dist.tensor_records import concatenate, take

RECALL_EVERY = 50
"""steps between measurements of the inverted file's recall"""


@dataclass(frozen=True)
class LookupPlan:
    """What the relations in use look up in a bank."""

    kinds: tuple[Kind, ...]
    """whose nearest rows become candidates"""
    votes: bool
    """whether unlabelled segments take their class from the bank"""
    ignore_classes: tuple[int, ...]
    """classes that do not count as shared tags"""


class ShardedBank:
    """A `SegmentBank` of every segment of the data set, spread over the ranks.

    What a step sees is what was published up to the step before, whatever the number of ranks. All methods
    but `len` are collectives.
    """

    def __init__(
        self,
        settings: BankConfig,
        dim: int,
        classes: int,
        plan: LookupPlan,
        seed: int,
        device: torch.device,
        names: Sequence[str] = (),
    ):
        """dim, classes: C and K; names: of the classes, as a snapshot must have them; else their numbers."""
        self.names = tuple(names or map(str, range(classes)))
        self.settings, self.dim, self.classes, self.seed = settings, dim, classes, seed
        self.partitions = settings.partitions
        self.store = Store(
            owned(comm.rank(), self.partitions, comm.world()),
            self.partitions,
            settings.capacity // self.partitions,
            dim,
            classes,
            settings.storage,
            device,
        )
        self.cache: IndexCache | None = None
        self.partition_files: dict[int, PartitionFile] = {}
        """what was last written or read of this rank's partitions; no more where `store.changed`"""
        self.statistics = Statistics()
        self._plan, self._device = plan, device
        self._group = exchange.background_group()
        self._in_transit: exchange.RowsInTransit | None = None

    def __len__(self) -> int:
        """Rows of this rank."""
        return len(self.store)

    def candidates(self, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
        """`SegmentBank.candidates`."""
        wear = self._settled()
        if self.settings.max_age is not None:
            self.store.expire(step - self.settings.max_age)
        self._upkeep(wear)
        queries = segment_queries(segments, self.classes, self._plan.ignore_classes)
        own, joins = self._own_slots(segments), step >= self.settings.warmup
        eligible = self.store.alive[: self.store.used].clone()
        eligible[own] = False
        number = sampling.segment_numbers(queries.image)
        some = sampling.draw_queries(queries.image, number, self.settings.queries, self.seed, step)
        looked_up = take(queries, some)
        voters = queries if self._plan.votes else looked_up
        self._measure_recall(looked_up, eligible, step)
        neighbours: list[Neighbours] = []
        labelled: Neighbours | None = None
        if joins or measure:
            neighbours, labelled = self._look_up(looked_up, voters, eligible, measure)
        if measure:
            assert labelled is not None
            self.statistics.measure(self.store, queries, (voters, labelled), eligible, self.classes, step)
        counts = self._counts(queries, own)
        if not joins:
            # As an empty bank: the collectives of `choose` are made all the same, with zeros of these shapes.
            eligible, neighbours, labelled = torch.zeros_like(eligible), [], None
            counts = difference(counts, counts)
        chosen = choose(
            self.store,
            self.settings,
            self.classes,
            queries.vector.dtype,
            neighbours,
            eligible,
            counts,
            self.seed,
            step,
        )
        return replace(chosen, labelled=labelled if self._plan.votes else None)

    def publish(self, parts: Sequence[BatchSegments], step: int) -> None:
        """`SegmentBank.publish`; raises as `add`."""
        if not parts:
            return
        rows = [
            of_segments(p.segments, p.images, p.propagated, p.confidence, step, self.settings.storage)
            for p in parts
        ]
        self.add(concatenate(rows), [key for part in parts for key in part.images.keys])

    def add(self, rows: BankRows, keys: Sequence[str]) -> None:
        """Send this rank's rows of a step to their owners, where they are from the next lookup on.

        rows: whole images; keys: their sample keys. Raises RunError on every rank for what no bank may hold.
        """
        self.settle()
        trouble = refusal(rows, self.classes, self.store.capacity, self.partitions, keys)
        self._in_transit = exchange.send(rows, self.partitions, self.settings.capacity, self._group, trouble)

    def settle(self) -> None:
        """Put what was published into its slots."""
        if self._in_transit is not None:
            comm.agree(self._put())

    def nearest(self, queries: Queries, kind: Kind, k: int) -> Neighbours:
        """The k nearest rows of all ranks for each query. queries: the same on every rank."""
        self._upkeep(self._settled())
        every_row = self.store.alive[: self.store.used]
        if self.cache and not self.cache.recall_measured:
            least = self.settings.min_recall
            measure_recall(self.store, self.cache, queries, [kind], k, every_row, least)
        answers = lookup(self.store, self.cache, queries, [kind], k, every_row)
        return exchange.merge_neighbours(self.store.rows, list(answers.values()))[0]

    def report(self, step: int) -> dict[str, float]:
        """`SegmentBank.report`."""
        # Drift of this step's rows belongs to this report: a checkpoint that follows does not keep it.
        self.settle()
        report = self.statistics.report(self.store, [*self._kinds, "labelled"], step)
        return {f"bank/{name}": value for name, value in report.items()}

    def copied(self, previous: Path | None = None) -> SnapshotCopy:
        """`SegmentBank.copied`."""
        self.settle()
        return SnapshotCopy(self, previous)

    def save(self, folder: Path) -> None:
        """Write a snapshot, which any number of ranks restores, and wait for it; see `snapshot.save`."""
        snapshot.save(self, folder)

    def restore(self, folder: Path) -> None:
        """`SegmentBank.restore`."""
        snapshot.restore(self, folder)

    @property
    def indexes(self) -> bool:
        """Whether many rows are searched by an inverted file: on a GPU comparing them all is fast, and
        `exact`, the referee, searches exactly."""
        on_cpu = self._device.type == "cpu"
        return self.settings.candidates != "exact" and (on_cpu or self.settings.gpu_index)

    @property
    def _kinds(self) -> tuple[Kind, ...]:
        """What is looked up to choose candidates by."""
        return () if self.settings.candidates == "exact" else self._plan.kinds

    def _put(self) -> RunError | None:
        """Put what arrived into its slots; what is wrong with it."""
        if self._in_transit is None:
            return None
        packed, self._in_transit = self._in_transit.receive(), None
        try:
            slots = self.store.put(unpack(packed, self.dim, self.classes, self.settings.storage))
        except RunError as trouble:
            return trouble
        if self.cache:
            self.cache.invalidate(slots.cpu().numpy())
        return None

    def _settled(self) -> Wear:
        """As `settle`; how worn the inverted files of all ranks are. A collective, always."""
        trouble = self._put()
        own = self.cache.wear if self.cache else Wear(len(self.store))
        return Wear(*comm.agree(trouble, *own))

    def _upkeep(self, wear: Wear) -> None:
        """Index the rows once they are many. wear: of all ranks, as `_settled` returned it."""
        if not self.indexes:
            return
        # All ranks at one step: a file takes long to make, and while one makes its own the others wait.
        many = wear.rows > self.settings.exact_rows * comm.world()
        if many and (self.cache is None or self.cache.outdated(wear)):
            self.cache = None  # the copies of one file at a time
            self.cache = IndexCache.of(self.store, self.seed, wear.rows)
        elif self.cache:
            self.cache.upkeep()

    def _own_slots(self, segments: Candidates) -> Tensor:
        """[n] int64: slots of the rows of a step's own images, unless these may be candidates."""
        images = [] if self.settings.own_images else segments.image.unique().tolist()
        slots = [np.zeros(0, np.int64), *(self.store.slots_of(image) for image in images)]
        return torch.from_numpy(np.concatenate(slots)).to(self.store.alive.device)

    def _counts(self, queries: Queries, own: Tensor) -> RowCounts:
        """Of this rank's rows, without those in the slots `own`."""
        excluded = filter_columns(self.store.rows, own)
        among_own = count(excluded, torch.ones_like(excluded.tags_known), queries, self.classes)
        return difference(self.store.counts.of(queries), among_own)

    def _measure_recall(self, queries: Queries, eligible: Tensor, step: int) -> None:
        """Measure the inverted file's recall when that is due: at steps that do not depend on what is logged,
        since it decides how widely the file is searched from then on."""
        if self.cache and (step % RECALL_EVERY == 0 or not self.cache.recall_measured):
            kinds, k = (*self._kinds, "labelled"), self.settings.neighbours
            least = self.settings.min_recall
            self.statistics.recall |= measure_recall(
                self.store, self.cache, queries, kinds, k, eligible, least
            )

    def _look_up(
        self, queries: Queries, voters: Queries, eligible: Tensor, measure: bool
    ) -> tuple[list[Neighbours], Neighbours | None]:
        """The neighbours that become candidates, and the annotated ones of the voters, where there is a vote
        or a measurement."""
        annotated: tuple[Kind, ...] = ("labelled",) if self._plan.votes or measure else ()
        k = self.settings.neighbours
        by_kind = lookup(self.store, self.cache, queries, self._kinds, k, eligible)
        labelled = lookup(self.store, self.cache, voters, annotated, k, eligible)
        # One exchange for all of them: its delay is what a lookup over many ranks costs most.
        merged = exchange.merge_neighbours(self.store.rows, [*by_kind.values(), *labelled.values()])
        # Where segments vote, the rows that voted for them are among their candidates.
        neighbours = merged if self._plan.votes else merged[: len(by_kind)]
        return neighbours, merged[-1] if labelled else None
