"""The plan: every image once an epoch, the same global batches for any number of workers, random access."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.data.stream.plan import Plan, cut

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
plans = st.builds(
    Plan,
    sizes,
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    window_shards=st.integers(1, 14),
)


def epoch_of(plan: Plan, epoch: int) -> list[tuple[int, int]]:
    steps = range((epoch + 2) * plan.samples // plan.batch_size + 1)
    draws = chain.from_iterable(plan.batch(step) for step in steps)
    return [(draw.shard, draw.index) for draw in draws if draw.epoch == epoch]


@given(plans, st.integers(0, 2))
def test_every_epoch_visits_every_sample_once(plan, epoch):
    everything = [(shard, index) for shard, size in enumerate(plan.shard_sizes) for index in range(size)]
    assert sorted(epoch_of(plan, epoch)) == everything


@given(plans, st.integers(0, 30))
def test_every_batch_is_full_and_follows_the_one_before(plan, step):
    batch = plan.batch(step)
    assert [draw.position for draw in batch] == list(range(plan.batch_size))
    assert [draw.epoch for draw in batch] == [
        (step * plan.batch_size + position) // plan.samples for position in range(plan.batch_size)
    ]


@given(plans, st.integers(0, 30), st.integers(1, 7), st.integers(1, 4))
def test_a_micro_batch_holds_the_same_images_for_any_world(plan, step, world, accumulation):
    micro_batches = [
        tuple(chain.from_iterable(plan.part(step, rank, world, micro, accumulation) for rank in range(world)))
        for micro in range(accumulation)
    ]
    assert micro_batches == [plan.part(step, 0, 1, micro, accumulation) for micro in range(accumulation)]
    assert tuple(chain.from_iterable(micro_batches)) == plan.batch(step)


@given(plans, st.integers(0, 30), st.integers(1, 7))
def test_ranks_get_as_many_images_as_the_others_or_one_fewer(plan, step, world):
    counts = [len(plan.part(step, rank, world)) for rank in range(world)]
    assert max(counts) - min(counts) <= 1


@given(sizes, st.integers(-1, 2), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_batches_of_nearly_the_whole_data_set(shard_sizes, more, world, accumulation, step):
    """One sample less or more than a batch, fewer tars than ranks: dealt out whole, an epoch at a time."""
    plan = Plan(shard_sizes, max(1, sum(shard_sizes) - more), 7, 2)
    parts = [
        plan.part(step, rank, world, m, accumulation) for m in range(accumulation) for rank in range(world)
    ]
    assert tuple(chain.from_iterable(parts)) == plan.batch(step)
    draws = plan.batch(step) + plan.batch(step + 1)
    assert len({(draw.epoch, draw.shard, draw.index) for draw in draws}) == len(draws)


def test_shards_are_announced_a_window_ahead():
    plan = Plan([10] * 6, batch=10, seed=3, window_shards=2)
    for step in range(18):
        window = step - step % 2
        read = {draw.shard for later in range(window, window + 4) for draw in plan.batch(later)}
        assert set(plan.shards_around(step)) == read


@given(sizes, st.integers(1, 40), st.integers(1, 14), st.permutations(range(12)))
def test_any_step_can_be_computed_first(shard_sizes, batch, window_shards, steps):
    in_order = Plan(shard_sizes, batch, 7, window_shards)
    expected = {step: in_order.batch(step) for step in range(12)}
    scattered = Plan(shard_sizes, batch, 7, window_shards)
    assert {step: scattered.batch(step) for step in steps} == expected


@given(st.integers(1, 4), st.integers(0, 3))
def test_few_shards_are_open_at_a_time(window_shards, epoch):
    plan = Plan([10] * 12, 10, 3, window_shards)
    order = [shard for shard, _ in epoch_of(plan, epoch)]
    for start in range(0, 120, 10 * window_shards):
        assert len(set(order[start : start + 10 * window_shards])) == min(window_shards, 12 - start // 10)


def test_epochs_and_seeds_differ():
    orders = [epoch_of(Plan([50, 50], 10, seed, 2), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_order_is_frozen():
    """Saved states mean steps of this very order: another order would silently repeat and skip images."""
    drawn = [(draw.epoch, draw.shard, draw.index) for draw in Plan([3, 2, 4], 5, 235, 2).batch(1)]
    assert drawn == [(0, 2, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 1)]


@given(st.integers(0, 50), st.integers(1, 9))
@settings(max_examples=50)
def test_cuts_cover_the_range_in_order(number, parts):
    pieces = [list(range(*cut(number, parts, part))) for part in range(parts)]
    assert list(chain.from_iterable(pieces)) == list(range(number))


def test_the_plan_needs_no_torch():
    program = "import sys, spml_dist.data.stream.plan; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
