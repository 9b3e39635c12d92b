"""The bank of one, two and three processes: the same answers, and those of a slow search over all rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from spml_dist import comm
from spml_dist.bank import sharded as sharded_module
from spml_dist.bank.rows import ANNOTATED, as_candidates, bitset, by_identity, digest, written
from spml_dist.bank.sampling import draw_probabilities
from spml_dist.bank.search import index_cache as cache_module
from spml_dist.bank.search import lookup as lookup_module
from spml_dist.bank.search.filters import Queries
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.config import load
from spml_dist.config.method_models import BankConfig
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash, uniform
from spml_dist.records import BankCandidates, BankRows, Candidates
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, brute_force, may_answer, rows_of
from tests.bank.test_sampling import slowly
from tests.conftest import SMALL
from tests.spawn import spawn

PLAN = LookupPlan(("shares_tag", "shares_none", "same_class", "other_class"), votes=True, ignore_classes=(3,))
SEED = 11
STEPS = 4
KEYS = [f"image {i}" for i in range(10)]


def settings(**changes) -> BankConfig:
    small = {
        "partitions": 7,
        "capacity": 700,
        "neighbours": 3,
        "max_candidates": 9,
        "sampled": 8,
        "queries": 99,
    }
    return load(SMALL).bank.model_copy(update=small | changes)


def bank_of(plan: LookupPlan = PLAN, **changes) -> ShardedBank:
    return ShardedBank(settings(**changes), DIM, CLASSES, plan, SEED, torch.device("cpu"))


def published(step: int, keys: list[str] | None = None, **how) -> BankRows:
    """A step's segments: half of the images are those of the step before last."""
    keys = [KEYS[(3 * step + i) % len(KEYS)] for i in range(6)] if keys is None else keys
    return rows_of(keys, [1 + (i + step) % 4 for i in range(len(keys))], step, seed=step, **how)


def asked(
    step: int, keys: tuple[str, ...] = ("image 1", "new", "image 4"), double: bool = False
) -> Candidates:
    """A step's segments; double: many alike, but turned by so little that float32 would not notice."""
    rows = rows_of(keys, [3, 4, 2][: len(keys)], seed=100 + step, coarse=double)
    rows = as_candidates(rows, CLASSES, torch.float32)
    if not double:
        return rows
    turned = torch.randn(rows.prototype.shape, generator=torch.Generator().manual_seed(step)).double()
    return replace(rows, prototype=rows.prototype.double() + 1e-10 * turned)


def mine(rows: BankRows, deal: str) -> BankRows:
    """What this rank has of a step: images in turn, or all with the first or last rank."""
    ranks = {"in turn": rows.position % comm.world(), "first": 0, "last": comm.world() - 1}
    return take(rows, torch.as_tensor(ranks[deal]).expand(len(rows)) == comm.rank())


CASES: dict[str, dict] = {
    "exact": {"candidates": "exact"},
    "exact with own images": {"candidates": "exact", "own_images": True},
    "nearest": {"candidates": "nearest"},
    "nearest, few of them": {"candidates": "nearest", "max_candidates": 4},
    "nearest, all of them": {"candidates": "nearest", "max_candidates": 99},
    "nearest, segments taking turns": {"candidates": "nearest", "max_candidates": 99, "queries": 3},
    "nearest+sampled": {},
    "nearest+sampled with own images": {"own_images": True, "sampled": 5},
    "more drawn than there are": {"sampled": 1000},
    "vectors alike": {"how": {"coarse": True}, "neighbours": 6},
    "float16": {"storage": "float16", "how": {"storage": "float16"}},
    "bfloat16": {"storage": "bfloat16", "how": {"storage": "bfloat16"}},
    "float64": {"how": {"coarse": True}, "asked": {"double": True}, "candidates": "nearest"},
    "age at most": {"max_age": 1},
    "warm-up": {"warmup": 3, "candidates": "exact"},
    "warm-up, sampled": {"warmup": 3},
    "images that go": {"capacity": 24, "partitions": 3},
    "a rank that publishes everything": {"deal": "first"},
    "a rank without rows": {
        "partitions": 3,
        "keys": [key for key in KEYS if image_hash([key]).item() % 3 == 1],
    },
    "more parts than images": {"partitions": 101, "capacity": 1010},
    "an image twice in a step": {
        "keys": [KEYS[0], KEYS[1], KEYS[0]],
        "asked": {"keys": ("new", KEYS[1], "new")},
        "queries": 3,
    },
    "nothing published": {"keys": []},
    "nobody asks": {"asked": {"keys": ()}},
    "an inverted file": {"exact_rows": 0, "how": {"coarse": True}},
    "an inverted file, one rank comparing": {
        "exact_rows": 0,
        "prefers_exact": ("other_class", "shares_none"),
    },
}
OWN = ("how", "deal", "keys", "asked", "prefers_exact")


def observe(rank: int) -> dict:
    """What a rank sees of every case, and the error where something is refused."""
    seen = {name: follow(rank, case) for name, case in CASES.items()}
    refusals = {name: refused(rank, name) for name in REFUSALS}
    return {"cases": seen, "refusals": refusals, "files": files_made()}


def follow(rank: int, case: dict) -> list[dict]:
    """Publish and ask, step after step."""
    how, deal = case.get("how", {}), case.get("deal", "in turn")
    bank = bank_of(**{key: value for key, value in case.items() if key not in OWN})
    seen = []
    with ExitStack() as stack:
        # So few rows would all be compared: let lists be searched, every one of them.
        stack.enter_context(patch.object(lookup_module, "FEW", -1))
        stack.enter_context(patch.object(cache_module, "PROBES", 1 << 10))
        stack.enter_context(patch.object(cache_module, "NEW_ROWS", 5))
        if "prefers_exact" in case:  # which would wear the file out
            stack.enter_context(patch.object(cache_module.IndexCache, "outdated", lambda *_: False))
        for step in range(STEPS):
            rows = mine(published(step, case.get("keys"), **how), deal)
            bank.add(rows, KEYS)
            if bank.cache and rank == 0:
                bank.cache.probes |= dict.fromkeys(case.get("prefers_exact", ()), 1 << 20)
            memory = bank.candidates(asked(step, **case.get("asked", {})), step + 1, measure=True)
            seen.append({"memory": flat(memory), "held": held(bank), "report": bank.report(step + 1)})
        assert (bank.cache is not None) == ("exact_rows" in case and len(bank) > 0)
    return seen


def files_made() -> list[dict]:
    """By step: whether this rank made an inverted file, its rows, and those that its file was made of."""
    bank, before, seen = bank_of(exact_rows=50, capacity=7000), None, []
    for step in range(16):
        bank.add(mine(rows_of([f"{step} {i}" for i in range(12)], [3] * 12, step=step), "in turn"), [])
        bank.candidates(asked(step), step + 1)
        made_of = bank.cache.trained_on if bank.cache else 0
        seen.append({"made": bank.cache is not before, "rows": len(bank), "of": made_of})
        before = bank.cache
    return seen


def held(bank: ShardedBank) -> BankRows:
    return take(bank.store.rows, bank.store.live())


def flat(memory: BankCandidates) -> dict[str, torch.Tensor | None]:
    """Every tensor by its name."""
    parts = {"": memory.rows, "counts.": memory.counts, "labelled.": memory.labelled}
    tensors = {
        prefix + f.name: getattr(part, f.name)
        for prefix, part in parts.items()
        if part is not None
        for f in fields(part)
    }
    return tensors | {"log_weight": memory.log_weight}


@pytest.fixture(scope="module")
def alone() -> dict:
    return observe(0)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request) -> list[dict]:
    return spawn(observe, request.param)


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if value is None or theirs[name] is None:
            assert value is theirs[name] is None, name
        else:
            assert torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype, name


@pytest.mark.parametrize("name", CASES)
def test_every_rank_of_any_number_is_told_the_same(ranks, alone, name):
    """Candidates, weights, exact counts and annotated neighbours, bit for bit."""
    for one in ranks:
        for ours, single in zip(one["cases"][name], alone["cases"][name], strict=True):
            assert_same(ours["memory"], single["memory"])


def test_all_ranks_make_their_inverted_files_at_one_step(ranks):
    """As the rows of all of them say: whoever waits for the slowest waits once, not once for every rank."""
    by_step = list(zip(*(one["files"] for one in ranks), strict=True))
    made_of, made = 0, 0
    for of_ranks in by_step:
        rows = sum(each["rows"] for each in of_ranks)
        due = rows > (2 * made_of if made_of else 50 * len(ranks))
        made, made_of = made + due, rows if due else made_of
        assert [(each["made"], each["of"]) for each in of_ranks] == [(due, made_of)] * len(ranks)
        assert not due or len({each["rows"] for each in of_ranks}) == len(ranks)  # unlike for each alone
    assert made > 1


@pytest.mark.parametrize("name", CASES)
def test_together_the_ranks_hold_what_one_would(ranks, alone, name):
    for step, single in enumerate(alone["cases"][name]):
        parts = [one["cases"][name][step]["held"] for one in ranks]
        digests = np.stack([digest(part) for part in parts])
        assert written(digests.sum(axis=0, dtype=np.uint64)) == written(digest(single["held"]))
        assert sum(map(len, parts)) == len(single["held"])
    if name == "a rank without rows":
        assert 0 in map(len, parts) and sum(map(len, parts)) > 0


@pytest.mark.parametrize("name", CASES)
def test_reports_do_not_depend_on_the_ranks(ranks, alone, name):
    for one in ranks:
        for ours, single in zip(one["cases"][name], alone["cases"][name], strict=True):
            assert ours["report"] == pytest.approx(single["report"], rel=1e-9)


def slow_memory(case: dict, rows: BankRows, question: Candidates, step: int) -> dict:
    """The same, over all rows at once, one pair after another."""
    options = settings(**{key: value for key, value in case.items() if key not in OWN})
    rows = by_identity(rows)
    if not options.own_images:
        rows = take(rows, ~torch.isin(rows.image, question.image))
    joins = step >= options.warmup
    eligible = rows if joins else take(rows, slice(0, 0))
    counted = question.tags & question.tags_known[:, None]
    counted[:, 3] = False
    label = torch.where(question.semantic < CLASSES, question.semantic, -1).short()
    queries = Queries(question.prototype, question.image, label, bitset(counted), question.tags_known)
    names = list(zip(eligible.image.tolist(), eligible.segment.tolist(), strict=True))
    kinds = [] if options.candidates == "exact" else [*PLAN.kinds]
    near = [(kind, whose_turn(queries, options.queries, step)) for kind in kinds] + [("labelled", queries)]
    answers = []
    for kind, some in near:
        answers.append([])
        for q, own in enumerate(brute_force(kind, some, eligible, options.neighbours)):
            cosines = [some.vector[q].double() @ eligible.vector[names.index(r)].double() for r in own]
            answers[-1].append([(c.float().item(), *r) for c, r in zip(cosines, own, strict=True)])
    seen = {"labelled": answers[-1] if joins else None, "weight": None, "counts": None}
    chosen = slowly(answers, options.max_candidates)
    if options.candidates == "exact":
        which = list(range(len(eligible)))
    else:
        which = [names.index(row) for row in chosen]
    if options.candidates == "nearest+sampled":
        left = [i for i in range(len(eligible)) if i not in which]
        chance = uniform(SEED, step, eligible.image, eligible.segment)
        annotated = eligible.source == ANNOTATED
        numbers = [sum(annotated[i].item() == kind for i in left) for kind in (True, False)]
        share = draw_probabilities(*numbers, options.sampled)
        drawn = [i for i in left if chance[i] < share[0 if annotated[i] else 1]]
        alike = {i: [j for j in left if annotated[j] == annotated[i]] for i in drawn}
        seen["weight"] = [1.0] * len(which)
        seen["weight"] += [len(alike[i]) / len(set(alike[i]).intersection(drawn)) for i in drawn]
        which += drawn
        seen["counts"] = {
            "by_class": [
                ((eligible.label == k) & (eligible.source == 1)).sum().item() for k in range(CLASSES)
            ],
            "by_propagated": [(eligible.label == k).sum().item() for k in range(CLASSES)],
            "sharing": shared(queries, eligible),
        }
    candidates = take(eligible, torch.tensor(which, dtype=torch.int64))
    return seen | {"rows": as_candidates(candidates, CLASSES, question.prototype.dtype)}


def whose_turn(queries: Queries, most: int, step: int) -> Queries:
    images = queries.image.tolist()
    number = torch.tensor([images[:i].count(image) for i, image in enumerate(images)], dtype=torch.int64)
    chance = uniform(SEED, step, queries.image, number).tolist()
    which = sorted(sorted(range(len(images)), key=lambda i: chance[i])[:most])
    return take(queries, which)


def shared(queries: Queries, rows: BankRows) -> list[int]:
    """Rows of the own image too."""
    elsewhere = replace(queries, image=queries.image * 0 + 1)
    return may_answer("shares_tag", elsewhere, rows).sum(axis=1).tolist()


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_a_slow_search_over_all_rows(alone, name):
    case = CASES[name]
    for step, single in enumerate(alone["cases"][name]):
        question = asked(step, **case.get("asked", {}))
        wanted, ours = slow_memory(case, single["held"], question, step + 1), single["memory"]
        for f in fields(Candidates):
            assert torch.equal(ours[f.name], getattr(wanted["rows"], f.name)), f.name
        if wanted["weight"] is None:
            assert ours["log_weight"] is None and "counts.by_class" not in ours
        else:
            assert ours["log_weight"].exp().tolist() == pytest.approx(wanted["weight"], rel=1e-6)
            for key, value in wanted["counts"].items():
                assert ours[f"counts.{key}"].tolist() == value, key
        if wanted["labelled"] is None:
            assert "labelled.image" not in ours
        else:
            assert neighbours(ours) == [[row for _, *row in each] for each in wanted["labelled"]]
            met = ours["labelled.similarity"] > -torch.inf
            cosines = [cosine for each in wanted["labelled"] for cosine, *_ in each]
            assert ours["labelled.similarity"][met].tolist() == pytest.approx(cosines, rel=1e-6, abs=1e-15)


def neighbours(memory: dict) -> list[list[list[int]]]:
    """(image, segment) of the annotated neighbours of each query."""
    parts = zip(memory["labelled.image"].tolist(), memory["labelled.segment"].tolist(), strict=True)
    assert torch.equal(memory["labelled.segment"] >= 0, memory["labelled.label"] >= 0)
    return [[list(row) for row in zip(*query, strict=True) if row[1] >= 0] for query in parts]


def test_the_cases_show_what_they_are_there_for(alone):
    last = {name: seen[-1]["memory"] for name, seen in alone["cases"].items()}
    rows = {name: len(seen[-1]["held"]) for name, seen in alone["cases"].items()}
    count = {name: len(memory["image"]) for name, memory in last.items()}
    assert count["nearest, few of them"] == 4 < count["nearest"] == 9 < count["nearest, all of them"]
    assert count["nearest, segments taking turns"] < count["nearest, all of them"]
    assert count["exact"] < count["exact with own images"] == rows["exact"] == rows["nearest"]
    assert count["more drawn than there are"] == count["exact"]
    assert count["nearest"] < count["nearest+sampled"] < count["exact"]
    assert rows["images that go"] < rows["exact"] and rows["age at most"] < rows["exact"]
    assert [len(each["memory"]["image"]) > 0 for each in alone["cases"]["warm-up"]] == [
        False,
        False,
        True,
        True,
    ]
    assert rows["nothing published"] == count["nothing published"] == 0
    assert count["nobody asks"] > 0 and 0 < rows["a rank without rows"] < rows["exact"]


@pytest.mark.parametrize("name", ["nearest+sampled", "nearest+sampled with own images", "float16"])
def test_the_weights_add_up_to_all_rows_that_may_be_candidates(alone, name):
    for step, single in enumerate(alone["cases"][name]):
        kept = single["held"]
        if not CASES[name].get("own_images"):
            kept = take(kept, ~torch.isin(kept.image, asked(step).image))
        assert single["memory"]["log_weight"].double().exp().sum().item() == pytest.approx(
            len(kept), rel=1e-6
        )


def test_reports_tell_what_was_seen(alone):
    report = alone["cases"]["nearest+sampled"][-1]["report"]
    rows = alone["cases"]["nearest+sampled"][-1]["held"]
    assert report["bank/rows"] == len(rows)
    assert report["bank/age_mean"] == pytest.approx((STEPS - 1 - rows.step.double()).mean().item())
    assert 0 <= report["bank/purity"] <= 1
    for relation in ("annotation", "cooccurrence"):
        step, recent, bank = (report[f"bank/coverage_{relation}/{of}"] for of in ("step", "recent", "bank"))
        assert 0 <= step <= recent <= bank <= 1
    assert not any("recall" in key for key in report)
    assert alone["cases"]["an inverted file"][0]["report"]["bank/recall/shares_tag"] == 1
    assert alone["cases"]["nothing published"][-1]["report"]["bank/rows"] == 0


def broken(name: str) -> tuple[BankRows, dict, str]:
    """Rows of which one is not to be stored, settings, and the message."""
    rows, row = rows_of(KEYS[:4], [3, 3, 3, 3], step=1, seed=5), 7  # of image 2, its second segment
    match name:
        case "not a number":
            rows.vector[row, 1] = torch.nan
            return rows, {}, "image image 2: segment 1 has an embedding that is not finite"
        case "a class that there is not":
            rows.label[row] = CLASSES
            return rows, {}, "image image 2: segment 1 has a class outside -1..4"
        case "tags that there are not":
            rows.tags[row] |= 1 << CLASSES
            return rows, {}, "image image 2: segment 1 has tags outside 0..4"
        case "more than fits":
            rows = rows_of(KEYS[:4], [3, 3, 3, 2], step=1)
            return (
                rows,
                {"capacity": 10, "partitions": 3},
                "bank.capacity is too small for one global batch (got 10); raise it to at least 12",
            )
        case "an image too large":
            return (
                rows_of(KEYS[:4], [1, 1, 9, 1], step=1),
                {"capacity": 24, "partitions": 3},
                "an image has 9 segments",
            )
        case "two keys of one hash":
            rows.check[rows.position == 2] ^= 1
            return rows, {}, "two sample keys have the same 64-bit hash"


REFUSALS = (
    "not a number",
    "a class that there is not",
    "tags that there are not",
    "more than fits",
    "an image too large",
    "two keys of one hash",
)


def refused(rank: int, name: str) -> dict:
    """The error of this rank, and what is there before and after; then work goes on."""
    rows, changes, _ = broken(name)
    bank = bank_of(**changes)
    before = rows_of(KEYS[:4], [1, 1, 1, 1])
    bank.add(mine(before, "in turn"), KEYS)
    bank.settle()
    seen = {"before": held(bank)}
    try:
        bank.add(mine(rows, "in turn"), KEYS)
        bank.settle()
        seen["message"] = None
    except RunError as error:
        seen["message"] = str(error)
    seen["after"] = held(bank)
    bank.add(mine(rows_of(KEYS[4:6], [1, 2], step=2), "in turn"), KEYS)
    seen["candidates"] = len(bank.candidates(asked(0, ("new",)), 3).rows)
    return seen


@pytest.mark.parametrize("name", REFUSALS)
def test_what_no_bank_may_hold_is_refused_on_every_rank(ranks, alone, name):
    """One rank's fault: all say so, with the sample's key, and can go on."""
    message = broken(name)[2]
    for world in ([alone], ranks):
        for one in world:
            outcome = one["refusals"][name]
            assert outcome["message"].startswith(message)
            if name != "two keys of one hash":  # which only its owner sees; the others have stored theirs
                assert outcome["candidates"] == alone["refusals"][name]["candidates"]
                assert (digest(outcome["before"]) == digest(outcome["after"])).all()
            else:
                assert outcome["candidates"] == world[0]["refusals"][name]["candidates"]


class TestOneProcess:
    def test_what_a_step_sees_was_published_before_it(self):
        bank = bank_of(candidates="exact", own_images=True)
        assert len(bank.candidates(asked(0), 0).rows) == 0
        for step in range(3):
            bank.add(rows_of([f"{step}"], [2], step=step), [])
            assert len(bank.candidates(asked(0), step + 1).rows) == 2 * (step + 1)

    def test_rows_older_than_the_age_at_most_are_gone(self):
        bank = bank_of(candidates="exact", own_images=True, max_age=2)
        for step in range(6):
            bank.add(rows_of([f"{step}"], [2], step=step), [])
        bank.candidates(asked(0), 6)
        assert held(bank).step.unique().tolist() == [4, 5]

    def test_draws_depend_on_the_step_and_not_on_what_was_asked_before(self):
        banks = [bank_of(sampled=8, max_candidates=1) for _ in range(2)]
        for bank in banks:
            bank.add(rows_of([f"{i}" for i in range(40)], [4] * 40), [])
        first, _, again, other = (banks[0].candidates(asked(0), step) for step in (5, 6, 5, 6))
        assert_same(flat(first), flat(again))
        assert_same(flat(banks[1].candidates(asked(0), 5)), flat(first))
        assert not torch.equal(first.rows.image, other.rows.image) or len(first.rows) != len(other.rows)

    def test_what_is_logged_changes_no_candidate(self, monkeypatch):
        """Also where recall is found too low, for the kind that only measurements ask for as well."""
        monkeypatch.setattr(lookup_module, "FEW", -1)
        monkeypatch.setattr(cache_module, "PROBES", 1)
        monkeypatch.setattr(cache_module, "NEW_ROWS", 5)
        monkeypatch.setattr(sharded_module, "RECALL_EVERY", 2)
        plan = replace(PLAN, votes=False)
        options = {"candidates": "nearest", "exact_rows": 0, "min_recall": 1, "capacity": 7000}
        logged, silent = (bank_of(plan, **options) for _ in range(2))
        widened = set()
        for step in range(8):
            keys = [f"{step % 4} {i}" for i in range(60)]
            for bank in (logged, silent):
                bank.add(rows_of(keys, [4] * 60, step, seed=step), [])
            ours, theirs = (bank.candidates(asked(0), step + 1, bank is logged) for bank in (logged, silent))
            assert_same(flat(ours), flat(theirs))
            assert logged.cache.state() == silent.cache.state()
            widened |= silent.cache.probes.keys()
        assert "labelled" in widened

    def test_about_as_many_rows_are_drawn_as_asked(self):
        bank = bank_of(sampled=40, max_candidates=5)
        bank.add(rows_of([f"{i}" for i in range(100)], [7] * 100), [])
        drawn = [len(bank.candidates(asked(0), step).rows) - 5 for step in range(60)]
        assert abs(sum(drawn) / len(drawn) - 40) < 4 * (40 / len(drawn)) ** 0.5

    def test_in_float64_candidates_and_similarities_are_too(self):
        bank, question = bank_of(candidates="nearest"), asked(0)
        bank.add(published(0), [])
        ours = bank.candidates(replace(question, prototype=question.prototype.double()), 1)
        assert ours.rows.prototype.dtype == torch.float64
        theirs = bank.candidates(question, 1)
        assert (
            torch.equal(ours.rows.image, theirs.rows.image)
            and ours.labelled.similarity.dtype == torch.float32
        )

    def test_candidates_have_no_gradient_and_are_copies(self):
        bank, question = bank_of(candidates="exact"), asked(0)
        bank.add(published(0), [])
        memory = bank.candidates(replace(question, prototype=question.prototype.requires_grad_()), 1)
        assert not memory.rows.prototype.requires_grad
        before = digest(held(bank))
        memory.rows.prototype.zero_()
        assert (digest(held(bank)) == before).all()

    def test_what_is_published_is_copied(self):
        bank, rows = bank_of(), published(0)
        wanted = digest(rows)
        bank.add(rows, [])
        rows.vector.zero_()
        bank.settle()
        assert (digest(held(bank)) == wanted).all()

    def test_without_votes_nobody_is_told_of_annotated_neighbours(self):
        bank = bank_of(replace(PLAN, votes=False))
        bank.add(published(0), [])
        assert bank.candidates(asked(0), 1, measure=True).labelled is None
        assert bank.candidates(asked(0), 1).labelled is None

    def test_a_report_tells_everything_once(self):
        bank = bank_of()
        for step in range(2):
            bank.add(rows_of(KEYS, [2] * 10, step=step), [])
            bank.candidates(asked(0), step + 1, measure=True)
        first, second = bank.report(2), bank.report(2)
        assert "bank/drift_cosine" in first and "bank/purity" in first
        assert set(second) == {"bank/rows"} | {key for key in first if key.startswith("bank/age")}

    def test_the_inverted_file_is_made_when_rows_are_many_and_again_when_it_is_worn(self):
        bank, made = bank_of(exact_rows=50, capacity=7000), []
        for step in range(8):
            bank.add(rows_of([f"{step} {i}" for i in range(10)], [3] * 10, step=step), [])
            bank.candidates(asked(step), step + 1)
            made.append(bank.cache.trained_on if bank.cache else None)
        assert made == [None, 60, 60, 60, 150, 150, 150, 150]

    def test_recall_is_measured_at_first_and_then_now_and_then(self):
        bank, seen = bank_of(exact_rows=10), []
        bank.add(published(0), [])
        for step in (1, 2, 49, 50, 51):
            bank.candidates(asked(0), step)
            seen.append("bank/recall/shares_tag" in bank.report(step))
        assert seen == [True, False, False, True, False]

    def test_recent_covers_what_the_last_two_steps_left(self):
        seen = []
        for later in (1, 2, 3):
            bank = bank_of()
            bank.add(published(0), [])
            bank.candidates(asked(0), later, measure=True)
            report = bank.report(later + 1)
            recent, whole = (report[f"bank/coverage_annotation/{of}"] for of in ("recent", "bank"))
            seen.append(recent == whole > report["bank/coverage_annotation/step"])
        assert seen == [True, True, False]

    def test_a_report_tells_of_what_its_step_published(self):
        bank = bank_of()
        bank.add(published(0), [])
        report = bank.report(1)
        assert report["bank/rows"] == len(published(0)) and report["bank/age_mean"] == 0

    def test_the_referee_of_the_others_has_no_inverted_file(self):
        for candidates in ("exact", "nearest"):
            bank = bank_of(candidates=candidates, exact_rows=0)
            bank.add(published(0), [])
            bank.candidates(asked(0), 1)
            assert bank.indexes == (bank.cache is not None) == (candidates == "nearest")

    def test_on_a_gpu_there_is_one_where_it_is_asked_for(self):
        for asked_for in (False, True):
            bank = bank_of(gpu_index=asked_for)
            assert bank.indexes
            bank._device = torch.device("cuda", 0)
            assert bank.indexes == asked_for


def test_a_union_of_parts_is_the_whole():
    """What `together the ranks hold` adds up."""
    parts = [published(0), published(1)]
    with np.errstate(over="ignore"):
        assert (digest(concatenate(parts)) == digest(parts[0]) + digest(parts[1])).all()
