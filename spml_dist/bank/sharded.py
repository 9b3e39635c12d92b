"""The global memory bank as one rank has it: its share of the rows, its part in every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank import exchange, sampling, snapshot, staleness
from spml_dist.bank.counts import count, over_all_ranks
from spml_dist.bank.partitions import owned
from spml_dist.bank.rows import ANNOTATED, as_candidates, bitset, by_identity, of_segments, pack, unpack
from spml_dist.bank.search.exact import Found, in_order
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.search.index_cache import Cache
from spml_dist.bank.search.lookup import lookup
from spml_dist.bank.search.recall import gauge
from spml_dist.bank.store import Store
from spml_dist.bank.validate import refusal
from spml_dist.config.method_models import BankConfig
from spml_dist.errors import RunError
from spml_dist.records import (
    BankCandidates,
    BankCounts,
    BankRows,
    BatchSegments,
    Candidates,
    Neighbours,
)
from spml_dist.tensor_records import concatenate, take

GAUGE = 50
"""steps between measurements of the inverted file's recall"""

RECENT = 2
"""steps that the paper's bank remembers; what more the whole bank covers is reported beside it"""


@dataclass(frozen=True)
class LookupPlan:
    """What the relations in use want to know."""

    kinds: tuple[Kind, ...]
    """whose nearest rows become candidates"""
    votes: bool
    """whether unlabelled segments take their class from the bank"""
    ignore_classes: tuple[int, ...]
    """classes that do not count as shared tags"""


class ShardedBank:
    """Every segment of the data set, spread over the ranks.

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
        self.store = Store(
            owned(comm.rank(), settings.partitions, comm.world()),
            settings.partitions,
            settings.capacity // settings.partitions,
            dim,
            classes,
            settings.storage,
            device,
        )
        self.cache: Cache | None = None
        self._plan, self._device = plan, device
        self._group = exchange.own_group()
        self._sending: exchange.Sending | None = None
        self._seen: dict[str, float] = {}
        self._recall: dict[Kind, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Rows of this rank."""
        return len(self.store)

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
        """Send this rank's segments of a step to their owners; they are rows from the next question on.

        rows: whole images; keys: their sample keys. Raises RunError on every rank for what no bank may hold.
        """
        self.settle()
        settings = self.settings
        trouble = refusal(rows, self.classes, self.store.capacity, settings.partitions, keys)
        self._sending = exchange.send(rows, settings.partitions, settings.capacity, self._group, trouble)

    def settle(self) -> None:
        """Put what was published into its slots."""
        if self._sending is None:
            return
        packed, self._sending, trouble = self._sending.receive(), None, None
        try:
            slots = self.store.put(unpack(packed, self.dim, self.classes, self.settings.storage))
            if self.cache:
                self.cache.overwritten(slots.cpu().numpy())
        except RunError as error:
            trouble = error
        comm.agree(trouble)

    def save(self, folder: Path) -> None:
        """`SegmentBank.save`: a snapshot, which any number of ranks restores."""
        snapshot.save(self, folder)

    def restore(self, folder: Path) -> None:
        """`SegmentBank.restore`."""
        snapshot.restore(self, folder)

    def candidates(self, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
        """`SegmentBank.candidates`."""
        self.settle()
        if self.settings.max_age is not None:
            self.store.expire(step - self.settings.max_age)
        self._upkeep()
        queries, eligible = self._queries(segments), self._eligible(segments)
        asking = self._taking_turns(queries, step)
        voters = queries if self._plan.votes else asking
        near, labelled, joins = [], None, step >= self.settings.warmup
        self._gauge(asking, eligible, step)
        if joins or measure:
            near, labelled = self._look_up(asking, voters, eligible, measure)
        if measure:
            self._measure(queries, voters, labelled, eligible, step)
        if not joins:
            eligible, near, labelled = torch.zeros_like(eligible), [], None
        memory = self._memory(segments, queries, near, eligible, step)
        return replace(memory, labelled=labelled if self._plan.votes else None)

    def nearest(self, queries: Queries, kind: Kind, k: int) -> Neighbours:
        """The k nearest rows of all ranks for each query; a collective. queries: the same on every rank."""
        self.settle()
        self._upkeep()
        everything = self.store.alive[: self.store.used]
        if self.cache and not self.cache.gauged:
            gauge(self.store, self.cache, queries, [kind], k, everything, self.settings.min_recall)
        return self._merged([lookup(self.store, self.cache, queries, [kind], k, everything)[kind]])[0]

    def report(self, step: int) -> dict[str, float]:
        """`SegmentBank.report`."""
        self.settle()  # all that this step did is told now: a checkpoint after it does not hold it
        own = staleness.summed(self.store.drift, self._recall, [*self._kinds, "labelled"], self._device)
        ages = staleness.ages(self.store.rows.step[self.store.live()], step - 1)
        said = self._seen | own | ages
        self.store.drift, self._recall, self._seen = [], {}, {}
        return {f"bank/{name}": value for name, value in said.items()}

    def _upkeep(self) -> None:
        """Index the rows once they are many."""
        if not self.indexes:
            return
        if self.cache is None or self.cache.worn:
            if len(self.store) > self.settings.exact_rows:
                self.cache = None  # the copies of one file at a time
                self.cache = Cache.of(self.store, self.seed)
        else:
            self.cache.upkeep()

    def _queries(self, rows: Candidates) -> Queries:
        counted = rows.tags & rows.tags_known[:, None]
        counted[:, list(self._plan.ignore_classes)] = False
        label = torch.where(rows.semantic < self.classes, rows.semantic, -1).short()
        return Queries(rows.prototype.detach(), rows.image, label, bitset(counted), rows.tags_known)

    def _eligible(self, rows: Candidates) -> Tensor:
        """[used] bool: rows that may become candidates."""
        eligible = self.store.alive[: self.store.used].clone()
        if not self.settings.own_images:
            for image in rows.image.unique().tolist():
                eligible[torch.from_numpy(self.store.slots_of(image)).to(eligible.device)] = False
        return eligible

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

    def _gauge(self, asking: Queries, eligible: Tensor, step: int) -> None:
        """Measure the inverted file's recall when that is due: at steps that do not depend on what is logged,
        since what is found decides how widely it is searched from then on."""
        if self.cache and (step % GAUGE == 0 or not self.cache.gauged):
            kinds, k = [*self._kinds, "labelled"], self.settings.neighbours
            least = self.settings.min_recall
            self._recall |= gauge(self.store, self.cache, asking, kinds, k, eligible, least)

    def _look_up(
        self, asking: Queries, voters: Queries, eligible: Tensor, measure: bool
    ) -> tuple[list[Neighbours], Neighbours | None]:
        """The neighbours that become candidates, and the annotated ones of the voters, where there is a vote
        or a measurement."""
        annotated, k = ["labelled"] if self._plan.votes or measure else [], self.settings.neighbours
        near = lookup(self.store, self.cache, asking, self._kinds, k, eligible)
        labelled = lookup(self.store, self.cache, voters, annotated, k, eligible)
        answers = self._merged([*near.values(), *labelled.values()])
        # Where segments vote, who voted for them is among their candidates.
        candidates = answers if self._plan.votes else answers[: len(near)]
        return candidates, answers[-1] if labelled else None

    def _taking_turns(self, queries: Queries, step: int) -> Queries:
        chosen = sampling.turn(queries.image, _numbers(queries.image), self.settings.queries, self.seed, step)
        return take(queries, chosen)

    def _merged(self, found: list[Found]) -> list[Neighbours]:
        """The best of what every rank found, all at once."""
        if not found:
            return []
        rows, k = self.store.rows, found[0].slot.shape[1]
        similarity, slot = (
            torch.cat([getattr(each, name) for each in found]) for name in ("similarity", "slot")
        )
        met, at = slot >= 0, slot.clamp(min=0)
        image, segment, label = (
            torch.where(met, getattr(rows, name)[at], missing)
            for name, missing in (("image", 0), ("segment", -1), ("label", -1))
        )
        everyones = exchange.side_by_side([similarity, image, segment, label])
        if comm.world() > 1:
            order = in_order(*everyones[:3])[:, :k]
            everyones = [each.gather(1, order) for each in everyones]
        parts = [each.split([len(one.slot) for one in found]) for each in everyones]
        return [Neighbours(best.float(), *facts) for best, *facts in zip(*parts, strict=True)]

    def _memory(
        self, rows: Candidates, queries: Queries, near: list[Neighbours], eligible: Tensor, step: int
    ) -> BankCandidates:
        none, settings = eligible.nonzero()[:0, 0], self.settings
        if settings.candidates == "exact":
            everything, _ = self._gathered(eligible.nonzero()[:, 0], none)
            return BankCandidates(as_candidates(everything, self.classes, rows.prototype.dtype))
        image, segment = sampling.nearest_of_all(near, settings.max_candidates)
        chosen, drawn = sampling.held(self.store, image, segment).to(none.device), none
        if settings.candidates == "nearest":
            everything, _ = self._gathered(chosen, none)
            return BankCandidates(as_candidates(everything, self.classes, rows.prototype.dtype))
        whole = over_all_ranks(count(self._facts(), eligible, queries, self.classes))
        left = eligible.clone()
        left[chosen] = False
        near_annotated = comm.sum_all(torch.count_nonzero(self.store.rows.source[chosen] == ANNOTATED))
        annotated = (whole.by_class.sum() - near_annotated).item()
        kinds = annotated, whole.rows.item() - len(image) - annotated
        share = sampling.shares(*kinds, settings.sampled)
        drawn = sampling.drawn(self.store, left.nonzero()[:, 0], share, self.seed, step)
        everything, count_drawn = self._gathered(chosen, drawn)
        weight = sampling.weights(everything.source, len(everything) - count_drawn, *kinds)
        candidates = as_candidates(everything, self.classes, rows.prototype.dtype)
        counts = BankCounts(whole.by_class, whole.by_propagated, whole.sharing)
        return BankCandidates(candidates, weight.log(), counts)

    def _gathered(self, chosen: Tensor, drawn: Tensor) -> tuple[BankRows, int]:
        """The chosen rows of all ranks, then the drawn ones and how many these are, each by identity."""
        own = pack(take(self.store.rows, torch.cat([chosen, drawn])))
        which = torch.zeros(len(own), 1, dtype=torch.uint8, device=own.device)
        which[len(chosen) :] = 1
        packed = exchange.everyones(torch.cat([own, which], dim=1))
        parts = [
            by_identity(unpack(packed[packed[:, -1] == part], self.dim, self.classes, self.settings.storage))
            for part in (0, 1)
        ]
        return concatenate(parts), len(parts[1])

    def _measure(
        self, queries: Queries, voters: Queries, labelled: Neighbours, eligible: Tensor, step: int
    ) -> None:
        """What the log is told of this step; the same on every rank."""
        rows = self._facts()
        recent = eligible & (rows.step >= step - RECENT)
        ours = count(queries, torch.ones_like(queries.tags_known), queries, self.classes)
        recent, whole = (
            over_all_ranks(count(rows, which, queries, self.classes)) for which in (recent, eligible)
        )
        self._seen = staleness.purity(voters, labelled)
        self._seen |= staleness.coverage(queries, ours, recent, whole)

    def _facts(self) -> BankRows:
        return take(self.store.rows, slice(0, self.store.used))


def _numbers(image: Tensor) -> Tensor:
    """[Q] int64: how many segments of its image come before each, in the order of the queries."""
    order = torch.argsort(image, stable=True)
    first = torch.searchsorted(image[order], image[order])
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(image), device=image.device) - first)
