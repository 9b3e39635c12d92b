"""Rows as records: from segments, as bytes, as digests, as candidates."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from spml_dist.bank.rows import (
    STORAGE,
    as_candidates,
    bitset,
    by_identity,
    digest,
    empty,
    from_bitset,
    of_segments,
    pack,
    unpack,
    written,
)
from spml_dist.hashing import image_check, image_hash
from spml_dist.records import UNLABELLED, BankRows, Batch, Segments
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, contents, rows_of, shuffled

NAMES = [f.name for f in fields(BankRows)]


def same(ours: BankRows, theirs: BankRows) -> bool:
    return all(
        torch.equal(a, b) and a.dtype == b.dtype
        for a, b in ((getattr(ours, name), getattr(theirs, name)) for name in NAMES)
    )


class TestBitset:
    @given(
        seed=st.integers(0, 2**31),
        rows=st.integers(0, 5),
        classes=st.sampled_from([1, 62, 63, 64, 126, 127, 200]),
    )
    def test_there_and_back(self, seed, rows, classes):
        tags = torch.rand(rows, classes, generator=torch.Generator().manual_seed(seed)) < 0.5
        words = bitset(tags)
        assert words.shape == (rows, -(-classes // 63)) and (words >= 0).all()
        assert torch.equal(from_bitset(words, classes), tags)

    @pytest.mark.parametrize("k", [0, 1, 62, 63, 125, 126, 199])
    def test_a_class_is_one_bit(self, k):
        tags = torch.zeros(1, 200, dtype=torch.bool)
        tags[0, k] = True
        wanted = [0, 0, 0, 0]
        wanted[k // 63] = 2 ** (k % 63)
        assert bitset(tags).tolist() == [wanted]

    def test_all_classes_at_once(self):
        assert bitset(torch.ones(1, 127, dtype=torch.bool)).tolist() == [[2**63 - 1, 2**63 - 1, 1]]


class TestPacking:
    @pytest.mark.parametrize("storage", STORAGE)
    @pytest.mark.parametrize("classes", [5, 63, 64, 150])
    @pytest.mark.parametrize("counts", [[], [1], [3, 1, 4]])
    def test_there_and_back(self, storage, classes, counts):
        rows = rows_of(
            [f"{i}" for i in range(len(counts))],
            counts,
            step=2**31 - 1,
            dim=7,
            classes=classes,
            storage=storage,
        )
        packed = pack(rows)
        width = 7 * STORAGE[storage].itemsize + 8 * -(-classes // 63) + 44
        assert packed.shape == (len(rows), width) and packed.dtype == torch.uint8
        assert same(unpack(packed, 7, classes, storage), rows)

    def test_bits_are_kept_as_they_are(self):
        """Minus zero, not-a-number, the ends of every integer."""
        rows = rows_of(["a"], [2])
        rows.vector[0, :4] = torch.tensor([-0.0, torch.nan, torch.inf, 1e-45])
        rows.image[0], rows.check[0], rows.label[0] = -(2**63), -(2**31), -(2**15)
        assert torch.equal(pack(unpack(pack(rows), DIM, CLASSES, "float32")), pack(rows))

    def test_part_of_a_wider_table_is_enough(self):
        rows = rows_of(["a", "b"], [3, 2])
        wider = torch.cat([pack(rows), torch.ones(5, 3, dtype=torch.uint8)], dim=1)
        back = unpack(wider[1::2], DIM, CLASSES, "float32")
        assert same(back, take(rows, slice(1, None, 2)))

    def test_what_is_unpacked_is_a_copy(self):
        packed = pack(rows_of(["a"], [2]))
        back = unpack(packed, DIM, CLASSES, "float32")
        packed.zero_()
        assert (back.image != 0).all() and (back.vector != 0).all()


class TestDigest:
    def test_it_is_frozen(self):
        """A snapshot of today is checked tomorrow."""
        rows = replace(
            empty(2, 3, 70, "float16"),
            vector=torch.tensor([[1, 0, 0], [0, -1, 0.5]]).half(),
            image=image_hash(["a", "b"]),
            check=image_check(["a", "b"]),
            label=torch.tensor([-1, 69]).short(),
        )
        assert written(digest(rows)) == "d79fb15de1998916ae4affe255858f2d"

    def test_nothing_has_none(self):
        assert digest(rows_of([], [])).tolist() == [0, 0]
        assert written(digest(rows_of([], []))) == "0" * 32

    @settings(deadline=None)
    @given(seed=st.integers(0, 2**31), cut=st.integers(0, 9), storage=st.sampled_from(list(STORAGE)))
    def test_order_does_not_matter_and_parts_add_up(self, seed, cut, storage):
        rows = shuffled(rows_of(["a", "b", "c"], [4, 2, 3], seed=seed, storage=storage), seed)
        parts = take(rows, slice(0, cut)), take(rows, slice(cut, None))
        with np.errstate(over="ignore"):
            together = digest(parts[0]) + digest(parts[1])
        assert (together == digest(rows)).all()
        assert (digest(by_identity(rows)) == digest(rows)).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_every_bit_of_every_field_counts(self, name):
        rows = rows_of(["a", "b"], [2, 2])
        seen = {written(digest(rows))}
        width = pack(rows).shape[1]
        starts = np.cumsum([0, *(pack_width(rows, each) for each in NAMES)])
        assert starts[-1] == width
        packed = pack(rows).numpy()
        at = NAMES.index(name)
        bits = [0] if name == "tags_known" else range(8)  # a bool has one
        for byte in range(starts[at], starts[at + 1]):
            for bit in bits:
                changed = packed.copy()
                changed[1, byte] ^= 1 << bit
                seen.add(written(digest(unpack(torch.from_numpy(changed), DIM, CLASSES, "float32"))))
        assert len(seen) == 1 + (starts[at + 1] - starts[at]) * len(bits)

    def test_rows_that_swap_a_field_are_other_rows(self):
        rows = rows_of(["a", "b"], [1, 1])
        swapped = replace(rows, area=rows.area.flip(0))
        assert (digest(rows) != digest(swapped)).all()

    def test_one_row_twice_is_not_none_of_it(self):
        row = rows_of(["a"], [1])
        assert written(digest(concatenate([row, row]))) not in ("0" * 32, written(digest(row)))


def pack_width(rows: BankRows, name: str) -> int:
    value = getattr(rows, name)
    return value.element_size() * (value.shape[1] if value.ndim > 1 else 1)


def test_an_order_by_identity_is_the_same_for_any_order():
    rows = rows_of(["a", "b", "c"], [4, 2, 3])
    ordered = by_identity(rows)
    assert contents(ordered) == contents(rows)
    pairs = list(zip(ordered.image.tolist(), ordered.segment.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert all(same(by_identity(shuffled(rows, seed)), ordered) for seed in range(5))


def test_empty_rows_are_zeros_of_the_right_kind():
    rows, like = empty(3, DIM, CLASSES, "bfloat16"), rows_of(["a"], [3], storage="bfloat16")
    for name in NAMES:
        ours, theirs = getattr(rows, name), getattr(like, name)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and not ours.any()


def batch_of(keys: list[str], generator: torch.Generator) -> Batch:
    size = len(keys)
    return Batch(
        keys=tuple(keys),
        position=torch.arange(size) * 2 + 5,
        image=torch.zeros(size, 3, 1, 1),
        semantic=torch.zeros(size, 1, 1, dtype=torch.uint8),
        regions=torch.zeros(size, 1, 1, dtype=torch.int32),
        tags=torch.rand(size, CLASSES, generator=generator) < 0.5,
        tags_known=torch.arange(size) % 2 == 0,
        window=torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.5, 0.0], [0.5, 0.5, 1.0, 1.0]])[:size],
        epoch=0,
    )


class TestOfSegments:
    """Three images, of which the second has no segment; classes annotated, propagated and unknown."""

    GENERATOR = torch.Generator().manual_seed(0)
    KEYS = ("a", "b", "c")
    BATCH = batch_of(list(KEYS), GENERATOR)
    SEGMENTS = Segments(
        prototype=normalize(torch.randn(5, DIM, generator=GENERATOR), dim=1).requires_grad_(),
        prototype_feature=torch.zeros(5, DIM),
        semantic=torch.tensor([2, UNLABELLED, UNLABELLED, 0, UNLABELLED]),
        region=torch.zeros(5, dtype=torch.int64),
        image=torch.tensor([0, 0, 0, 2, 2]),
        box=torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.0, 0.5, 1.0]] * 2 + [[0.0, 0.5, 1.0, 1.0]]),
        area=torch.tensor([1.0, 0.25, 0.5, 0.125, 0.5]),
    )
    PROPAGATED = torch.tensor([2, 4, UNLABELLED, 0, 1])
    CONFIDENCE = torch.tensor([1.0, 0.75, 0.5, 1.0, 0.625])

    def rows(self, storage: str = "float32") -> BankRows:
        return of_segments(self.SEGMENTS, self.BATCH, self.PROPAGATED, self.CONFIDENCE, 17, storage)

    def test_who_where_and_when(self):
        rows = self.rows()
        assert rows.image.tolist() == image_hash(["a", "a", "a", "c", "c"]).tolist()
        assert rows.check.tolist() == image_check(["a", "a", "a", "c", "c"]).tolist()
        assert rows.segment.tolist() == [0, 1, 2, 0, 1]
        assert rows.step.tolist() == [17] * 5 and rows.position.tolist() == [5, 5, 5, 9, 9]

    def test_a_class_says_where_it_comes_from_and_how_sure_it_is(self):
        rows = self.rows()
        assert rows.label.tolist() == [2, 4, -1, 0, 1]
        assert rows.source.tolist() == [1, 2, 0, 1, 2]
        assert rows.confidence.tolist() == [1.0, 0.75, 0.0, 1.0, 0.625]

    def test_tags_are_those_of_the_image_and_none_where_unknown(self):
        known = self.rows()
        batch = replace(self.BATCH, tags_known=torch.tensor([False, True, True]))
        unknown = of_segments(self.SEGMENTS, batch, self.PROPAGATED, self.CONFIDENCE, 17, "float32")
        assert torch.equal(from_bitset(known.tags, CLASSES), self.BATCH.tags[self.SEGMENTS.image])
        assert self.BATCH.tags[0].any() and known.tags_known.all()
        assert (unknown.tags[:3] == 0).all() and unknown.tags_known.tolist() == [False] * 3 + [True] * 2

    def test_places_are_in_the_image_and_not_in_the_crop(self):
        rows = self.rows()
        assert rows.box[0].tolist() == [0, 0, 1, 1] and rows.area[0] == 1.0
        assert rows.box[3].tolist() == [0.625, 0.5, 0.75, 1.0] and rows.area[3] == 0.125 / 4

    @pytest.mark.parametrize("storage", STORAGE)
    def test_vectors_have_the_storage_s_format_and_no_gradient(self, storage):
        rows = self.rows(storage)
        assert rows.vector.dtype == STORAGE[storage] and not rows.vector.requires_grad
        assert torch.equal(rows.vector, self.SEGMENTS.prototype.detach().to(STORAGE[storage]))

    def test_they_can_be_sent_and_stored(self):
        assert same(unpack(pack(self.rows()), DIM, CLASSES, "float32"), self.rows())

    def test_no_segments_make_no_rows(self):
        none = Segments(*(getattr(self.SEGMENTS, f.name)[:0] for f in fields(Segments)))
        rows = of_segments(none, self.BATCH, self.PROPAGATED[:0], self.CONFIDENCE[:0], 0, "float32")
        assert len(rows) == 0 and same(rows, take(rows_of(["a"], [1]), slice(0, 0)))
        nobody = batch_of([], torch.Generator())
        assert len(of_segments(none, nobody, self.PROPAGATED[:0], self.CONFIDENCE[:0], 0, "float32")) == 0


def test_as_candidates_annotated_and_propagated_classes_stand_apart():
    rows = rows_of(["a", "b", "c"], [5, 5, 5], storage="float16")
    ours = as_candidates(rows, CLASSES, torch.float64)
    assert set(rows.source.tolist()) == {0, 1, 2}
    for i, (label, source) in enumerate(zip(rows.label.tolist(), rows.source.tolist(), strict=True)):
        assert ours.semantic[i] == (label if source == 1 else UNLABELLED)
        assert ours.propagated[i] == (label if source else UNLABELLED)
    assert ours.prototype.dtype == torch.float64 and torch.equal(ours.prototype, rows.vector.double())
    assert torch.equal(ours.tags, from_bitset(rows.tags, CLASSES)) and torch.equal(ours.image, rows.image)
    assert torch.equal(ours.tags_known, rows.tags_known)
