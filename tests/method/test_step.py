"""One step's losses: against a slow formula, and the same for any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize

from spml_dist import comm
from spml_dist.config import Config, load
from spml_dist.hashing import image_hash
from spml_dist.method.colour import colours
from spml_dist.method.location import location
from spml_dist.method.step import RELATIONS, TERMS, local_features, losses, segments_of
from spml_dist.records import IGNORED, UNLABELLED, Batch, Candidates
from tests.method.test_loss import pixel_loss
from tests.remembering import remembering
from tests.spawn import spawn

SMALL = Path(__file__).parents[1] / "small.yaml"
CLASSES, CHANNELS, SIDE, CROP = 4, 6, 6, 13
WEIGHTS = {
    "image_similarity": 0.2,
    "annotation": 1.0,
    "cooccurrence": 0.5,
    "feature_affinity": 0.3,
    "cross_entropy": 0.7,
}


def configured(
    reduction: str = "global", tagless: str = "once", scope: str = "batch", changed=(), **weights: float
) -> Config:
    weights = WEIGHTS | weights
    changes = [f"relations.{term}.weight={weights[term]}" for term in RELATIONS]
    changes += [f"relations.feature_affinity.scope={scope}", "relations.feature_affinity.min_similarity=0.9"]
    changes += [f"loss.cross_entropy={weights['cross_entropy']}", "segments.grid=[2,2]"]
    changes += [f"loss.reduction={reduction}", f"loss.tagless={tagless}", "segments.iterations=3"]
    changes += ["relations.cooccurrence.ignore_classes=[3]"]
    return load(SMALL, [*changes, *changed])


@dataclass
class World:
    """A global batch, what is remembered of earlier ones, and how many of its images each rank has."""

    raw: Tensor
    logits: Tensor
    batch: Batch
    remembered: list[Candidates]
    counts: tuple[int, ...]

    def part(self, rank: int, world: int) -> World:
        """What a rank has; with fewer ranks than counts, the last takes what is left."""
        counts = [*self.counts[: world - 1], sum(self.counts[world - 1 :])]
        mine = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        values = vars(self.batch) | {
            f.name: getattr(self.batch, f.name)[mine] for f in fields(Batch) if f.name != "epoch"
        }
        return World(self.raw[mine], self.logits[mine], Batch(**values), self.remembered, self.counts)


def example(counts=(2, 2, 1), seed: int = 0, unlabelled=(), ignored=(), steps: int = 2) -> World:
    """Images of every kind: labels, regions and tags at random; 1 shows tags unknown, 2 no class."""
    generator = torch.Generator().manual_seed(seed)
    images = sum(counts)

    def draw(high, *size):
        return torch.randint(0, high, size, generator=generator)

    semantic = torch.tensor([0, 1, 2, UNLABELLED, UNLABELLED, IGNORED])[draw(6, images, CROP, CROP)]
    semantic[list(unlabelled)] = torch.where(semantic == IGNORED, IGNORED, UNLABELLED)[list(unlabelled)]
    semantic[list(ignored)] = IGNORED
    tags = draw(2, images, CLASSES).bool()
    tags[2:3] = False
    batch = Batch(
        keys=tuple(map(str, range(images))),
        position=torch.arange(images),
        image=torch.zeros(images, 3, 1, 1),
        semantic=semantic.to(torch.uint8),
        regions=draw(3, images, CROP, CROP).int() * 30000,
        tags=tags,
        tags_known=torch.arange(images) != 1,
        window=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(images, 4),
        epoch=0,
    )
    raw = torch.randn(images, CHANNELS, SIDE, SIDE, generator=generator)
    logits = torch.randn(images, CLASSES, SIDE, SIDE, generator=generator)
    remembered = []
    for step in range(steps):
        p = 4 + step
        remembered.append(
            Candidates(
                prototype=normalize(torch.randn(p, CHANNELS, generator=generator), dim=1),
                semantic=torch.tensor([0, 1, 2, UNLABELLED])[draw(4, p)],
                tags=draw(2, p, CLASSES).bool(),
                tags_known=draw(2, p).bool(),
                image=draw(3, p) + 3 * step,
                propagated=torch.tensor([0, 1, 2, UNLABELLED])[draw(4, p)],
            )
        )
    return World(raw, logits, batch, remembered, counts)


def reference(world: World, config: Config, ranks: int) -> tuple[dict[str, float], Tensor, Tensor]:
    """Each term's value, and the gradients of the weighted sum: pixel by pixel, in float64, one process."""
    return summed_up(pixel_losses(world, config), world, config, ranks)


def pixel_losses(world: World, config: Config) -> tuple[Tensor, Tensor, dict[str, list]]:
    """Raw embedding and logits in float64, and of each term (image, loss) of the pixels that have one."""
    raw, logits = (v.double().requires_grad_() for v in (world.raw, world.logits))
    batch = world.batch
    pixels, segments = segments_of(world.raw, batch, config)
    index, p = pixels.segment, len(segments)
    u = normalize(raw.movedim(1, -1), dim=-1)
    f = normalize(
        torch.cat([u, location(SIDE, SIDE, dtype=raw.dtype).expand(len(u), -1, -1, -1)], -1), dim=-1
    )
    where = torch.arange(SIDE) * CROP // SIDE
    valid = batch.semantic[:, where[:, None], where] != IGNORED
    u, f = u[valid], f[valid]
    mu, mu_f = (
        torch.stack([normalize(v[index == s].sum(0), dim=0) for s in range(p)]) if p else v[:0]
        for v in (u, f)
    )
    old = world.remembered
    candidates = torch.cat([mu, *(r.prototype.double() for r in old)])
    labels = torch.cat([segments.semantic, *(r.semantic for r in old)]).tolist()
    tags = torch.cat([batch.tags[segments.image], *(r.tags for r in old)])
    known = torch.cat([batch.tags_known[segments.image], *(r.tags_known for r in old)])
    counted = torch.tensor([True, True, True, False])  # ignore_classes: [3]
    scope = config.relations.feature_affinity.scope
    passed_on = nearest_classes(mu.detach(), segments, batch, old, config)
    classes = torch.tensor(passed_on + [k for r in old for k in r.propagated.tolist()])
    in_own_image = config.relations.image_similarity.local_features

    per_pixel = {term: [] for term in TERMS}  # (image, loss)
    for i in range(len(index)):
        image, own, label = int(pixels.image[i]), int(index[i]), int(pixels.semantic[i])

        def loss(term, vectors, pixel, attract, repel, own=own, double=False):
            s = torch.exp(getattr(config.relations, term).concentration * (vectors @ pixel))
            return pixel_loss(s, torch.ones_like(s), attract, repel, own, double, None)[0]

        same_image = segments.image == image
        same_region = segments.region == pixels.region[i]
        prototypes, pixel = (mu_f, f[i]) if in_own_image else (mu, u[i])
        value = loss(
            "image_similarity", prototypes, pixel, same_image & same_region, same_image & ~same_region
        )
        per_pixel["image_similarity"].append((image, value))
        if label < CLASSES:
            attract = torch.tensor([t == label for t in labels])
            repel = torch.tensor([t != label and t < CLASSES for t in labels])
            per_pixel["annotation"].append((image, loss("annotation", candidates, u[i], attract, repel)))
        if batch.tags_known[image]:
            shared = (tags & batch.tags[image] & counted).any(dim=1)
            double = config.loss.tagless == "reference"
            value = loss("cooccurrence", candidates, u[i], shared & known, ~shared & known, double=double)
            per_pixel["cooccurrence"].append((image, value))
        same, unknown = classes == passed_on[own], classes == UNLABELLED
        if scope == "image":  # the release: the unknown attract everything and are attracted by everything
            same = same | unknown | (passed_on[own] == UNLABELLED)
        if passed_on[own] != UNLABELLED or scope == "image":
            value = loss("feature_affinity", candidates, u[i], same, ~same & ~unknown)
            per_pixel["feature_affinity"].append((image, value))
    full = interpolate(logits, size=(CROP, CROP), mode="bilinear", align_corners=False)
    target = torch.where(batch.semantic < CLASSES, batch.semantic.long(), -1)
    entropy = cross_entropy(full, target.clamp(min=0), reduction="none")
    for image, y, x in (target >= 0).nonzero().tolist():
        per_pixel["cross_entropy"].append((image, entropy[image, y, x]))
    return raw, logits, per_pixel


def summed_up(
    of_pixels: tuple[Tensor, Tensor, dict[str, list]], world: World, config: Config, ranks: int
) -> tuple[dict[str, float], Tensor, Tensor]:
    """What `reference` returns, of `pixel_losses`."""
    raw, logits, per_pixel = of_pixels
    weights = {t: getattr(config.relations, t).weight for t in RELATIONS}
    values = {term: reduced(per_pixel[term], term, world.counts, ranks, config) for term in TERMS}
    weights["cross_entropy"] = config.loss.cross_entropy
    total = sum(weights[t] * values[t] for t in TERMS) + 0 * (raw.sum() + logits.sum())
    grads = torch.autograd.grad(total, (raw, logits), retain_graph=True)  # for another way to sum up
    return {t: float(v) for t, v in values.items()}, *grads


def nearest_classes(mu: Tensor, segments, batch: Batch, old: list[Candidates], config: Config) -> list[int]:
    """Each segment's class by feature affinity, one by one."""
    relation, found = config.relations.feature_affinity, []
    images = image_hash(batch.keys)[segments.image]
    for s, label in enumerate(segments.semantic.tolist()):
        near = [
            (float(mu[s] @ mu[t]), int(segments.semantic[t]))
            for t in range(len(mu))
            if segments.semantic[t] < CLASSES
            and (relation.scope != "image" or segments.image[s] == segments.image[t])
        ]
        if relation.scope == "global":
            near += [
                (float(mu[s] @ row.prototype[t].double()), int(row.semantic[t]))
                for row in old
                for t in range(len(row))
                if row.semantic[t] < CLASSES and row.image[t] != images[s]
            ]
        cosine, nearest = max(near, default=(-2.0, UNLABELLED))
        found.append(
            label if label < CLASSES else nearest if cosine >= relation.min_similarity else UNLABELLED
        )
    return found


def reduced(pairs, term: str, counts, ranks: int, config: Config) -> Tensor:
    """Mean over all pixels, or mean of the ranks' means; image similarity: mean of the images' means."""

    def mean(some):
        images = sorted({image for image, _ in some})
        if term == "image_similarity":
            means = [torch.stack([v for k, v in some if k == image]).mean() for image in images]
        else:
            means = [v for _, v in some]
        return torch.stack(means).mean() if means else torch.tensor(0.0, dtype=torch.float64)

    if config.loss.reduction == "global":
        return mean(pairs)
    counts = [*counts[: ranks - 1], sum(counts[ranks - 1 :])]
    starts = [sum(counts[:r]) for r in range(ranks)]
    parts = [
        [(k, v) for k, v in pairs if start <= k < start + n] for start, n in zip(starts, counts, strict=True)
    ]
    return torch.stack([mean(part) for part in parts]).mean()


SCENARIOS = {
    "ragged": {"counts": (2, 2, 1)},
    "a rank without images": {"counts": (3, 0, 2)},
    "first rank without images": {"counts": (0, 3, 2)},
    "a rank without labelled pixels": {"counts": (2, 1, 2), "unlabelled": (2, 3, 4)},
    "a rank without valid pixels": {"counts": (2, 1, 2), "ignored": (2, 3, 4)},
    "no labels at all": {"counts": (1, 1, 1), "unlabelled": range(3)},
    "no valid pixel at all": {"counts": (1, 1, 1), "ignored": range(3), "steps": 0},
    "nothing remembered": {"counts": (1, 1, 1), "steps": 0},
    "nearest in the own image": {"counts": (2, 2, 1)},
    "nearest in the own image, a rank without labelled pixels": {
        "counts": (2, 1, 2),
        "unlabelled": (2, 3, 4),
    },
}
CASES = [(name, reduction) for name in SCENARIOS for reduction in ("global", "per_rank")]
DRAWN = "few pixels of a segment"
WORLDS = SCENARIOS | {DRAWN: {"counts": (2, 2, 1)}}


def settings_of(name: str, reduction: str) -> Config:
    changed = ["loss.pixels_per_segment=1"] if name == DRAWN else []
    return configured(reduction, scope="image" if "own image" in name else "batch", changed=changed)


def observe(rank: int) -> dict:
    """What a rank gets for every case."""
    cases = [*CASES, (DRAWN, "global")]
    return {case: stepped(example(**WORLDS[case[0]]), settings_of(*case), rank) for case in cases}


def stepped(world: World, config: Config, rank: int = 0) -> dict:
    mine = world.part(rank, comm.world())
    raw, logits = mine.raw.requires_grad_(), mine.logits.requires_grad_()
    result = losses(raw, logits, mine.batch, remembering(mine.remembered), 0, config)
    result.total.backward()
    return {
        "total": result.total.item(),
        "values": result.values,
        "without": result.without_positive,
        "pixels": result.pixels,
        "candidates": result.candidates,
        "rows": None
        if result.segments is None
        else [getattr(result.segments.candidates, f.name).detach() for f in fields(Candidates)],
        # The engine takes the mean of the ranks' gradients.
        "grads": [
            v.grad / comm.world() if v.grad is not None else torch.zeros_like(v) for v in (raw, logits)
        ],
    }


@pytest.fixture(scope="module", params=[1, 2, 3])
def ranks(request) -> list[dict]:
    return [observe(0)] if request.param == 1 else spawn(observe, request.param)


@cache
def slow_formula(case: tuple[str, str], ranks: int) -> tuple[dict[str, float], Tensor, Tensor]:
    return summed_up(of_pixels(case[0]), example(**SCENARIOS[case[0]]), settings_of(*case), ranks)


@cache
def of_pixels(name: str) -> tuple[Tensor, Tensor, dict[str, list]]:
    return pixel_losses(example(**SCENARIOS[name]), settings_of(name, "global"))


@pytest.fixture(scope="module")
def alone() -> dict:
    return observe(0)


def assert_near(ours: Tensor, theirs: Tensor):
    torch.testing.assert_close(
        ours.double(), theirs.double(), rtol=1e-5, atol=1e-5 * max(1, float(theirs.abs().max()))
    )


@pytest.mark.parametrize("case", CASES, ids=" / ".join)
def test_values_and_gradients_are_those_of_the_slow_formula(ranks, case):
    """Ragged batches, ranks without images, labels or pixels; both reductions; a remembered bank."""
    ours = [one[case] for one in ranks]
    values, raw_grad, logits_grad = slow_formula(case, len(ranks) if case[1] == "per_rank" else 1)
    summed = sum(one["values"] for one in ours)
    if case[1] == "per_rank":
        summed = summed / len(ranks)
    assert_near(summed, torch.tensor([values[term] for term in TERMS]))
    assert_near(torch.cat([one["grads"][0] for one in ours]), raw_grad)
    assert_near(torch.cat([one["grads"][1] for one in ours]), logits_grad)
    assert_near(
        torch.tensor(sum(one["total"] for one in ours) / len(ranks)),
        torch.tensor(sum(WEIGHTS[term] * values[term] for term in TERMS)),
    )


@pytest.mark.parametrize("name", WORLDS)
def test_with_the_global_reduction_ranks_are_one_process(ranks, alone, name):
    ours, single = [one[name, "global"] for one in ranks], alone[name, "global"]
    assert_near(sum(one["values"] for one in ours), single["values"])
    for i in range(2):
        assert_near(torch.cat([one["grads"][i] for one in ours]), single["grads"][i])
    for what in ("without", "pixels"):
        assert (
            torch.as_tensor(sum(one[what] for one in ours)).tolist() == torch.as_tensor(single[what]).tolist()
        )


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_rank_publishes_the_same_rows(ranks, alone, name):
    single = alone[name, "global"]
    for one in ranks:
        rows, first = one[name, "global"]["rows"], ranks[0][name, "global"]["rows"]
        assert all(torch.equal(a, b) for a, b in zip(rows, first, strict=True))
        for a, b in zip(rows, single["rows"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        remembered = sum(len(part) for part in example(**SCENARIOS[name]).remembered)
        assert one[name, "global"]["candidates"] == len(rows[1]) + remembered


def test_a_mean_of_ranks_is_not_the_mean_of_pixels(ranks):
    if len(ranks) > 1:
        by_pixel, by_rank = (
            sum(one["ragged", reduction]["values"] for one in ranks) for reduction in ("global", "per_rank")
        )
        assert ((by_pixel - by_rank / len(ranks)).abs() > 1e-4).all()


def test_without_labels_there_is_no_annotation_and_the_gradient_is_finite(alone):
    ours = alone["no labels at all", "global"]
    value = dict(zip(TERMS, ours["values"].tolist(), strict=True))
    assert value["annotation"] == value["cross_entropy"] == 0 < value["cooccurrence"]
    assert value["feature_affinity"] == 0
    assert all(torch.isfinite(g).all() for g in ours["grads"]) and (ours["grads"][0] != 0).any()


def test_without_valid_pixels_there_is_nothing_but_a_zero_that_keeps_the_graph_alive(alone):
    for reduction in ("global", "per_rank"):
        ours = alone["no valid pixel at all", reduction]
        assert ours["total"] == 0 and ours["pixels"] == ours["candidates"] == 0
        assert (ours["values"] == 0).all() and all((g == 0).all() for g in ours["grads"])


def test_published_rows_are_the_segments_of_the_batch():
    world, config = example(), configured()
    prototype, semantic, tags, known, image, propagated = stepped(example(), config)["rows"]
    _, segments = segments_of(world.raw, world.batch, config)
    assert torch.equal(prototype, segments.prototype) and torch.equal(semantic, segments.semantic)
    assert torch.equal(image, image_hash(world.batch.keys)[segments.image])
    assert torch.equal(tags, world.batch.tags[segments.image])
    assert torch.equal(known, world.batch.tags_known[segments.image])
    classes = nearest_classes(segments.prototype.double(), segments, world.batch, [], config)
    assert propagated.tolist() == classes
    assert UNLABELLED in propagated and (propagated != segments.semantic).any()


def test_an_image_is_known_by_its_key_and_not_by_its_place():
    world = example(counts=(2,))
    world.batch = replace(world.batch, position=torch.tensor([7, 3]), keys=("a", "b"))
    assert set(stepped(world, configured())["rows"][4].tolist()) == set(image_hash(["a", "b"]).tolist())


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_is_its_part_of_the_whole(term, alone):
    only = dict.fromkeys(TERMS, 0.0) | {term: 1.0}
    ours = stepped(example(), configured(**only))
    expected = torch.where(torch.tensor([t == term for t in TERMS]), alone["ragged", "global"]["values"], 0)
    assert_near(ours["values"], expected)
    assert ours["total"] == pytest.approx(float(expected.sum()), rel=1e-6)
    assert (ours["rows"] is None) == (term == "cross_entropy")
    assert (ours["grads"][0] == 0).all() == (term == "cross_entropy")
    assert (ours["grads"][1] == 0).all() == (term != "cross_entropy")


def test_the_weights_of_the_terms_multiply_their_gradients():
    parts = [
        stepped(example(), configured(**(dict.fromkeys(TERMS, 0.0) | {t: w})))["grads"]
        for t, w in WEIGHTS.items()
    ]
    whole = stepped(example(), configured())["grads"]
    for i in range(2):
        assert_near(sum(part[i] for part in parts), whole[i])


def test_what_is_remembered_matters_and_stays_as_it_is(alone):
    world = example()
    before = [part.prototype.clone() for part in world.remembered]
    ours, without = stepped(world, configured()), stepped(example(steps=0), configured())
    assert all(torch.equal(a, part.prototype) for a, part in zip(before, world.remembered, strict=True))
    changed = (ours["values"] != without["values"]).tolist()
    assert changed == [False, True, True, True, False]


def test_the_release_counts_the_own_segment_of_a_tagless_image_twice():
    once, twice = (configured("global", tagless, annotation=0.0) for tagless in ("once", "reference"))
    values, raw_grad, _ = reference(example(), twice, 1)
    ours = stepped(example(), twice)
    assert ours["values"][2].item() == pytest.approx(values["cooccurrence"], rel=1e-5)
    assert_near(ours["grads"][0], raw_grad)
    assert ours["values"][2] > stepped(example(), once)["values"][2]


def test_without_feature_affinity_segments_have_their_annotation_and_no_other_class():
    rows = stepped(example(), configured(feature_affinity=0.0))["rows"]
    assert torch.equal(rows[5], rows[1])


def test_the_labelled_segments_of_all_ranks_pass_on_their_class(ranks, alone):
    """In the ranks without labels of their own too, which is what makes the scope a batch."""
    name = "a rank without labelled pixels", "global"
    single = alone[name]["rows"]
    for one in ranks:
        assert torch.equal(one[name]["rows"][5], single[5])
    unlabelled_images = torch.isin(single[4], image_hash(["2", "3", "4"]))
    assert (single[1][unlabelled_images] == UNLABELLED).all()
    assert (single[5][unlabelled_images] < CLASSES).any()


def test_an_image_s_segments_are_compared_by_the_embedding_alone_if_so_configured():
    only = dict.fromkeys(WEIGHTS, 0.0) | {"image_similarity": 1.0}
    config = configured(changed=["relations.image_similarity.local_features=false"], **only)
    values, raw_grad, _ = reference(example(), config, 1)
    ours = stepped(example(), config)
    assert ours["values"][0].item() == pytest.approx(values["image_similarity"], rel=1e-5)
    assert_near(ours["grads"][0], raw_grad)
    assert ours["values"][0] != stepped(example(), configured(**only))["values"][0]


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("colour", ["cone", "gaussian"])
def test_colours_stand_beside_the_coordinates(colour, scale):
    world = example()
    image = torch.randn(5, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    world.batch = replace(world.batch, image=image)
    config = configured(changed=[f"segments.colour={colour}", f"segments.embedding_scale={scale}"])
    pixels, _ = segments_of(world.raw, world.batch, config)
    local = local_features(image, (SIDE, SIDE), colour)
    assert torch.equal(local[..., :2], location(SIDE, SIDE).expand(5, -1, -1, -1))
    torch.testing.assert_close(local[..., 2:], colours(image, (SIDE, SIDE), colour))
    where = torch.arange(SIDE) * CROP // SIDE
    kept = local[world.batch.semantic[:, where[:, None], where] != IGNORED]
    wanted = normalize(torch.cat([scale * pixels.embedding, kept], dim=1), dim=1)
    torch.testing.assert_close(pixels.feature, wanted)


def test_a_step_in_float64_is_one_in_float64_throughout():
    world = example()
    world.raw, world.logits = world.raw.double(), world.logits.double()
    ours = stepped(world, configured())
    values, raw_grad, logits_grad = reference(example(), configured(), 1)
    assert ours["values"].dtype == torch.float64
    wanted = torch.tensor([values[term] for term in TERMS], dtype=torch.float64)
    # Coordinates and remembered rows are made in float32, nothing else is.
    torch.testing.assert_close(ours["values"][1:], wanted[1:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours["values"], wanted, rtol=1e-6, atol=1e-6)
    assert all(grad.dtype == torch.float64 for grad in ours["grads"])
    torch.testing.assert_close(ours["grads"][0], raw_grad, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours["grads"][1], logits_grad, rtol=1e-12, atol=1e-14)


def test_bfloat16_embeddings_are_contrasted_in_float32():
    world = example()
    world.raw, world.logits = world.raw.bfloat16(), world.logits.bfloat16()
    ours = stepped(world, configured())
    rounded = example()
    rounded.raw, rounded.logits = world.raw.detach().float(), world.logits.detach().float()
    assert_near(ours["values"], stepped(rounded, configured())["values"])
    assert ours["values"].dtype == torch.float32
    assert all(g.dtype == torch.bfloat16 and torch.isfinite(g).all() for g in ours["grads"])
