"""Feature affinity: unlabelled segments take the class that their nearest labelled ones vote for."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from spml_dist.method.relations import feature_affinity
from spml_dist.method.relations.feature_affinity import counted, propagate, relation
from spml_dist.records import UNLABELLED, Candidates, Pixels

CLASSES = 4
labels = st.lists(st.sampled_from([*range(CLASSES), UNLABELLED]), max_size=12)


def segments(seed: int, count: int = 30, images: int = 3):
    """Unit vectors, labels (half of them 254) and images of some segments."""
    generator = torch.Generator().manual_seed(seed)
    vectors = normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    semantic = torch.randint(0, 2 * CLASSES, (count,), generator=generator)
    semantic = torch.where(semantic < CLASSES, semantic, UNLABELLED)
    return vectors, semantic, torch.randint(0, images, (count,), generator=generator)


def lattice(seed: int, count: int = 24):
    """As `segments`, of unit vectors whose cosines are exactly -1, -½, 0, ½ or 1: nearly all tie."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64)] * 4)
    vectors = torch.cat([axes, corners])
    vectors = vectors[torch.randint(0, len(vectors), (count,), generator=generator)]
    return vectors, *segments(seed, count)[1:]


def slow_vote(near: list[tuple[float, int]], neighbours: int, margin: float) -> tuple[int, float]:
    """Class and confidence from the (cosine, class) of those that are near enough."""
    voters = sorted(near, key=lambda one: (-one[0], one[1]))[:neighbours]
    if not voters:
        return UNLABELLED, 0.0
    votes = Counter(k for _, k in voters)
    nearest = {k: max(s for s, of in voters if of == k) for k in votes}
    winner = min(votes, key=lambda k: (-votes[k], -nearest[k], k))
    next_most = max((n for k, n in votes.items() if k != winner), default=0)
    if (votes[winner] - next_most) / len(voters) < margin:
        return UNLABELLED, 0.0
    return winner, votes[winner] / len(voters)


def slow(vectors, semantic, image, least: float, within: bool, neighbours=1, margin=0.0):
    """Class and confidence of each segment."""
    found = []
    for i in range(len(vectors)):
        near = [
            (cosine, int(semantic[t]))
            for t in range(len(vectors))
            if semantic[t] < CLASSES and (not within or image[i] == image[t])
            if (cosine := float(vectors[i] @ vectors[t])) >= least
        ]
        own = semantic[i] < CLASSES
        found.append((int(semantic[i]), 1.0) if own else slow_vote(near, neighbours, margin))
    return found


def propagated(vectors, semantic, image, least, within, **voting):
    known = semantic < CLASSES
    images = (image, image[known]) if within else None
    return propagate(vectors, semantic, vectors[known], semantic[known], CLASSES, least, images, **voting)


def assert_found(ours, expected):
    classes, confidence = ours
    assert classes.dtype == torch.int64 and confidence.dtype == torch.float32
    assert classes.tolist() == [k for k, _ in expected]
    assert confidence.tolist() == pytest.approx([c for _, c in expected], abs=1e-7)


made = st.builds(lambda make, seed: make(seed), st.sampled_from([segments, lattice]), st.integers(0, 2**31))
votings = st.fixed_dictionaries(
    {"neighbours": st.integers(1, 9), "margin": st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 1.0])}
)
leasts = st.sampled_from([-1.0, 0.0, 0.5, 0.95, 1.0])


@settings(deadline=None)
@given(made, leasts, st.booleans(), st.integers(1, 200))
def test_the_class_is_that_of_the_nearest_labelled_segment_if_it_is_near_enough(given, least, within, tile):
    vectors, semantic, image = given
    with mock.patch.object(feature_affinity, "TILE", tile):
        ours, confidence = propagated(*given, least, within)
    for i, found in enumerate(ours.tolist()):
        near = [
            (-float(vectors[i] @ vectors[t]), int(semantic[t]))
            for t in range(len(vectors))
            if semantic[t] < CLASSES and (not within or image[i] == image[t])
        ]
        distance, nearest = min(near, default=(2.0, UNLABELLED))
        passed_on = nearest if -distance >= least else UNLABELLED
        assert found == (int(semantic[i]) if semantic[i] < CLASSES else passed_on)
    assert torch.equal(confidence, (ours != UNLABELLED).float())


@settings(deadline=None)
@given(made, leasts, st.booleans(), votings, st.integers(1, 200))
def test_the_nearest_labelled_segments_vote(given, least, within, voting, tile):
    with mock.patch.object(feature_affinity, "TILE", tile):
        ours = propagated(*given, least, within, **voting)
    assert_found(ours, slow(*given, least, within, **voting))


@settings(deadline=None)
@given(made, leasts, st.booleans(), votings, st.integers(0, 2**31))
def test_the_order_of_the_segments_does_not_matter(given, least, within, voting, seed):
    """Not even where two classes are equally near."""
    vectors, semantic, image = given
    vectors = (16 * vectors).round() / 16  # sums are exact: a processor may round each place differently
    vectors = torch.cat([vectors, vectors])
    semantic = torch.cat([semantic, torch.where(semantic < CLASSES, (semantic + 1) % CLASSES, UNLABELLED)])
    image = torch.cat([image, image])
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    ours = propagated(vectors, semantic, image, least, within, **voting)
    mixed = propagated(vectors[order], semantic[order], image[order], least, within, **voting)
    assert all(torch.equal(a, b[order]) for a, b in zip(mixed, ours, strict=True))


@settings(deadline=None)
@given(made, leasts, votings, st.floats(0, 1), st.integers(0, 4), st.integers(1, 200))
def test_remembered_rows_vote_like_those_that_are_searched(given, least, voting, share, missing, tile):
    """Some of the labelled ones are handed over as each segment's nearest instead, in any order."""
    vectors, semantic, _ = given
    known = (semantic < CLASSES).nonzero()[:, 0]
    searched, kept = known.tensor_split([int(share * len(known))])
    similarity = vectors @ vectors[kept].T
    # The bank answers with as many as may vote, equal ones smallest class first; -1 and -inf where no row is.
    by_class = semantic[kept].argsort(stable=True)
    best = similarity[:, by_class].sort(dim=1, descending=True, stable=True)
    k = voting["neighbours"]
    nearest, label = best.values[:, :k], semantic[kept][by_class][best.indices[:, :k]].to(torch.int16)
    nothing = torch.full((len(vectors), missing), -torch.inf), torch.full((len(vectors), missing), 2).short()
    labelless = torch.ones(len(vectors), 1), torch.full((len(vectors), 1), -1).short()
    remembered = (
        torch.cat([labelless[0], nearest.flip(1), nothing[0]], dim=1),
        torch.cat([labelless[1], label.flip(1), nothing[1]], dim=1),
    )
    with mock.patch.object(feature_affinity, "TILE", tile):
        ours = propagate(
            vectors,
            semantic,
            vectors[searched],
            semantic[searched],
            CLASSES,
            least,
            remembered=remembered,
            **voting,
        )
    assert_found(ours, slow(*given, least, False, **voting))


def one_segment(voters: list[tuple[float, int]], least=0.0, **voting) -> tuple[int, float]:
    """An unlabelled segment and labelled ones at the given cosines."""
    cosine = torch.tensor([c for c, _ in voters], dtype=torch.float64)
    vectors = torch.stack([cosine, (1 - cosine**2).sqrt()], dim=1)
    labels = torch.tensor([k for _, k in voters])
    me = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    classes, confidence = propagate(me, torch.tensor([254]), vectors, labels, CLASSES, least, **voting)
    return int(classes), float(confidence)


VOTERS = [(0.9, 2), (0.8, 1), (0.7, 1), (0.6, 3), (0.5, 3)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"neighbours": 1}, (2, 1.0)),
        ({"neighbours": 3}, (1, 2 / 3)),
        ({"neighbours": 2}, (2, 0.5)),  # one vote each: the nearest voter's class
        ({"neighbours": 5}, (1, 0.4)),  # two each: likewise, among those that lead
        ({"neighbours": 5, "least": 0.75}, (2, 0.5)),  # two are near enough
        ({"neighbours": 5, "least": 0.95}, (UNLABELLED, 0.0)),  # nobody is
        ({"neighbours": 3, "margin": 1 / 3}, (1, 2 / 3)),  # leads by one vote in three
        ({"neighbours": 3, "margin": 0.34}, (UNLABELLED, 0.0)),
        ({"neighbours": 9, "margin": 0.0}, (1, 0.4)),  # there are five
        ({"neighbours": 1, "margin": 1.0}, (2, 1.0)),
    ],
)
def test_votes_by_hand(changed, expected):
    assert one_segment(VOTERS, **changed) == pytest.approx(expected)


def test_places_and_ties_that_nothing_else_decides_go_to_the_smallest_class():
    voters = [(0.9, 3), (0.5, 2), (0.5, 1), (0.5, 2)]
    assert one_segment(voters, neighbours=2) == (3, 0.5)
    assert one_segment(voters, neighbours=3) == pytest.approx((3, 1 / 3))
    assert one_segment(voters, neighbours=4) == (2, 0.5)
    assert one_segment(voters[1:], neighbours=1) == (1, 1.0)
    assert one_segment(voters[1:], neighbours=2) == (1, 0.5)


def test_a_labelled_segment_keeps_its_own_class_at_any_threshold():
    vectors = normalize(torch.randn(50, 37, generator=torch.Generator().manual_seed(0)), dim=1)
    semantic = torch.arange(50) % CLASSES
    ours, confidence = propagated(vectors, semantic, torch.zeros(50), 1.0, False, neighbours=7, margin=1.0)
    assert torch.equal(ours, semantic) and (confidence == 1).all()


@pytest.mark.parametrize("neighbours", [1, 5])
def test_without_labels_nothing_has_a_class(neighbours):
    vectors, _, image = segments(0)
    nobody = torch.full((30,), UNLABELLED)
    ours, confidence = propagated(vectors, nobody, image, -1.0, False, neighbours=neighbours)
    assert (ours == UNLABELLED).all() and (confidence == 0).all()
    nothing = propagated(vectors[:0], nobody[:0], image[:0], -1.0, False, neighbours=neighbours)
    assert [len(part) for part in nothing] == [0, 0]


def pixels_of(segment) -> Pixels:
    n, nothing = len(segment), torch.zeros(len(segment), dtype=torch.int64)
    own = torch.tensor(segment, dtype=torch.int64)
    return Pixels(torch.zeros(n, 2), torch.zeros(n, 4), nothing, nothing, own, nothing)


def rows_of(classes) -> Candidates:
    p = len(classes)
    nothing = torch.zeros(p, dtype=torch.int64)
    tags = torch.zeros(p, CLASSES, dtype=torch.bool)
    known = torch.zeros(p, dtype=torch.bool)
    return Candidates(
        torch.zeros(p, 2), nothing, tags, known, nothing, torch.tensor(classes, dtype=torch.int64)
    )


@settings(deadline=None)
@given(labels, labels, st.sampled_from(["image", "batch", "global"]))
def test_one_class_attracts_another_repels_and_the_unknown_do_as_the_scope_says(own, others, scope):
    pixels = pixels_of(range(len(own)))
    ours = relation(pixels, torch.tensor(own, dtype=torch.int64), rows_of(others), CLASSES, 12.0, scope)
    assert (ours.concentration, ours.own_repels) == (12.0, False)
    for i, mine in enumerate(own):
        group = int(ours.group[i])
        assert (group == -1) == (mine == UNLABELLED)
        for t, theirs in enumerate(others if group >= 0 else ()):
            attracts = theirs == mine or (scope == "image" and theirs == UNLABELLED)
            assert bool(ours.attract[group, t]) == attracts
            assert bool(ours.repel[group, t]) == (theirs != mine and theirs != UNLABELLED)


@pytest.mark.parametrize(("scope", "expected"), [("image", 5), ("batch", 3), ("global", 3)])
def test_pixels_of_unknown_segments_count_where_the_release_counts_them(scope, expected):
    pixels = pixels_of([0, 1, 1, 2, 0])
    assert int(counted(pixels, torch.tensor([UNLABELLED, 3, 0]), CLASSES, scope)) == expected
