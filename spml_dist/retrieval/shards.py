"""A collection that outgrows one machine: indexes of some packs each, asked as one, on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from spml_dist.bank.search.exact import in_order
from spml_dist.cluster.serve import deployed
from spml_dist.retrieval.collection import Collection, Neighbour, open_index
from spml_dist.retrieval.filters import Filter
from spml_dist.retrieval.segment_index import Search


@dataclass(frozen=True)
class Question:
    """What travels to every shard."""

    vector: np.ndarray
    """[C] float32, a unit vector"""
    search: Search
    chosen: Filter


Shard = Callable[[Question], tuple[Neighbour, ...]]


@dataclass(frozen=True)
class Opening:
    """Opens an index where it is called; replicas of one machine share its files, mapped into memory."""

    folder: Path

    def __call__(self) -> Shard:
        return partial(_answer, open_index(self.folder))


class Shards:
    """Indexes that hold different pictures each, asked as one: their answers are merged as a bank's are."""

    def __init__(self, shards: Sequence[Shard]):
        self._shards = shards

    def like_vector(
        self, vector: np.ndarray, search: Search, chosen: Filter | None = None
    ) -> tuple[Neighbour, ...]:
        """The nearest of all shards, best first, equal ones by shard and row: as one index of the same packs
        in the same order gives them, but for their rows, which count within a shard."""
        question = Question(vector, search, chosen or Filter())
        with ThreadPoolExecutor(len(self._shards)) as pool:
            answers = list(pool.map(lambda shard: shard(question), self._shards))
        return merged(answers, search.k)


def merged(answers: Sequence[tuple[Neighbour, ...]], k: int) -> tuple[Neighbour, ...]:
    """The k best of what shards answered."""
    found = [(each, shard) for shard, answer in enumerate(answers) for each in answer]
    columns = [
        torch.tensor([[of(each, shard) for each, shard in found]])
        for of in (lambda n, _: n.similarity, lambda _, shard: shard, lambda n, _: n.segment.row)
    ]
    return tuple(found[place][0] for place in in_order(*columns)[0, :k].tolist()) if found else ()


@contextmanager
def sharded(folders: Sequence[str | Path], replicas: int = 1) -> Iterator[Shards]:
    """While the block runs the indexes in `folders`, of different packs, answer as one on a Ray cluster.

    Each is held by so many actors of Ray Serve; one folder with several replicas serves many that ask. The
    folders are looked up where the actors run. Raises RunError where Ray Serve is not installed or a folder
    holds no index.
    """
    with deployed([Opening(Path(folder).resolve()) for folder in folders], replicas) as shards:
        yield Shards(shards)


def _answer(collection: Collection, question: Question) -> tuple[Neighbour, ...]:
    return collection.like_vector("", question.vector, question.search, question.chosen).neighbours
