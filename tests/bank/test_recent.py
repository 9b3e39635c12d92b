"""The last steps' segments."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from spml_dist.bank.recent import RecentBank
from spml_dist.records import Candidates
from spml_dist.tensor_records import concatenate


def rows(step: int, count: int = 3) -> Candidates:
    generator = torch.Generator().manual_seed(step)
    return Candidates(
        prototype=torch.randn(count, 4, generator=generator),
        semantic=torch.randint(0, 5, (count,), generator=generator),
        tags=torch.rand(count, 5, generator=generator) < 0.5,
        tags_known=torch.rand(count, generator=generator) < 0.5,
        image=torch.arange(count) + 10 * step,
        propagated=torch.randint(0, 5, (count,), generator=generator),
    )


def filled(steps: int, published: int) -> RecentBank:
    bank = RecentBank(steps)
    for step in range(published):
        bank.add(rows(step, 2 + step))
    return bank


def same(ours: list[Candidates], theirs: list[Candidates]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(getattr(a, f.name), getattr(b, f.name))
        for a, b in zip(ours, theirs, strict=True)
        for f in fields(Candidates)
    )


@pytest.mark.parametrize("steps", [0, 2])
def test_empty_means_empty(steps):
    bank = RecentBank(steps)
    assert bank.rows() == [] and len(bank) == 0 and bank.state() == {}


@pytest.mark.parametrize("published", range(6))
def test_the_last_steps_stay_oldest_first(published):
    bank = filled(3, published)
    kept = [rows(step, 2 + step) for step in range(published)][-3:]
    assert same(bank.rows(), kept)
    assert len(bank) == sum(len(part) for part in kept)


def test_a_bank_of_no_steps_keeps_nothing():
    bank = filled(0, 4)
    assert bank.rows() == [] and len(bank) == 0


@pytest.mark.parametrize("published", [0, 1, 2, 5])
def test_state_and_restore_are_the_identity_twice_in_a_row(published):
    bank, other, third = filled(2, published), filled(2, 1), filled(2, 3)
    other.load_state(bank.state())
    third.load_state(other.state())
    assert same(other.rows(), bank.rows()) and same(third.rows(), bank.rows())
    for each in (bank, other, third):
        each.add(rows(9))
    assert same(other.rows(), bank.rows()) and same(third.rows(), bank.rows())


def test_more_than_nine_steps_come_back_in_their_order():
    bank, other = filled(12, 12), RecentBank(12)
    other.load_state(dict(sorted(bank.state().items())))
    assert same(other.rows(), bank.rows())


def test_a_shorter_bank_restores_the_newest():
    shorter = RecentBank(2)
    shorter.load_state(filled(4, 4).state())
    assert same(shorter.rows(), filled(2, 4).rows())


def test_what_is_remembered_is_a_copy_without_gradient():
    given = rows(0)
    leaf = given.prototype.requires_grad_()
    bank = RecentBank(1)
    bank.add(given)
    with torch.no_grad():
        leaf.zero_()
    (kept,) = bank.rows()
    assert not kept.prototype.requires_grad and (kept.prototype != 0).any()


def test_concatenation_keeps_the_order_and_the_gradient():
    first, second = rows(0), rows(1, 5)
    leaf = first.prototype.requires_grad_()
    both = concatenate([first, second])
    for f in fields(Candidates):
        parts = getattr(first, f.name), getattr(second, f.name)
        assert torch.equal(getattr(both, f.name), torch.cat(parts))
    both.prototype.sum().backward()
    assert (leaf.grad == 1).all()
