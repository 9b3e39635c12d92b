"""A training whose bank is spoilt on purpose: `python -m benchmarks.bank_controls CONTROL train … --alone`.

What follows CONTROL is what `spml-dist` takes. If a bank helps by what it remembers, each must cost:
random: every candidate from the bank is a random unit vector, which keeps its class, image, tags and weight;
frozen: the bank takes nothing more after a tenth of the steps, which `schedule.steps=N` has to say.
`benchmarks.learning` trains both, as its rows bank_random and bank_frozen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest.mock import patch

import torch

from spml_dist import cli
from spml_dist.bank.sharded import ShardedBank
from spml_dist.method.kmeans import unit
from spml_dist.records import BankCandidates, BatchSegments, Candidates

look_up, take_in = ShardedBank.candidates, ShardedBank.publish


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank_controls", description=__doc__)
    parser.add_argument("control", choices=("random", "frozen"))
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what `spml-dist` takes")
    args = parser.parse_args(argv)
    if args.control == "frozen" and not any(word.startswith("schedule.steps=") for word in args.words):
        parser.error("frozen needs schedule.steps=N")
    name, spoilt = ("candidates", random) if args.control == "random" else ("publish", frozen(args.words))
    with patch.object(ShardedBank, name, spoilt):
        return cli.main(args.words)


def random(bank: ShardedBank, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
    """A bank's candidates with other prototypes, the same on every rank."""
    found = look_up(bank, segments, step, measure)
    noise = torch.randn(found.rows.prototype.shape, generator=torch.Generator().manual_seed(step))
    return replace(found, rows=replace(found.rows, prototype=unit(noise).to(found.rows.prototype)))


def frozen(words: Sequence[str]) -> Callable[[ShardedBank, Sequence[BatchSegments], int], None]:
    """A bank's publish, which keeps nothing that comes after a tenth of the steps."""
    steps = next(int(word.partition("=")[2]) for word in words if word.startswith("schedule.steps="))
    return lambda bank, parts, step: take_in(bank, parts if step < steps // 10 else (), step)


if __name__ == "__main__":
    sys.exit(main())
