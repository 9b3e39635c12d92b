"""Hashes, owners and draws: the same in every run, on every machine, for any number of ranks."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.bank.partitions import owned, owner_of, partition_of
from spml_dist.hashing import image_check, image_hash, uniform

KEYS = ["", "a", "2007_000032", "city/Straße 7"]
INT64 = st.integers(-(2**63), 2**63 - 1)


class TestHashes:
    def test_they_are_frozen(self):
        """Snapshots hold them: they never change."""
        assert image_hash(KEYS).tolist() == [
            4432341248727578953,
            -3943637853674140747,
            -5805976175201903756,
            -5038396764300016879,
        ]
        assert image_check(KEYS).tolist() == [-2059179516, 2103407486, -15159034, -213796780]

    def test_they_are_blake2b_of_the_key_s_utf_8(self):
        for key in KEYS:
            message = hashlib.blake2b(key.encode("utf-8"), digest_size=8, person=b"image").hexdigest()
            assert image_hash([key]).item() % 2**64 == int(message, 16)
            message = hashlib.blake2b(key.encode("utf-8"), digest_size=4, person=b"check").hexdigest()
            assert image_check([key]).item() % 2**32 == int(message, 16)

    def test_shapes_and_types(self):
        assert image_hash([]).shape == image_check([]).shape == (0,)
        assert image_hash([]).dtype == image_hash(KEYS).dtype == torch.int64
        assert image_check([]).dtype == image_check(KEYS).dtype == torch.int32

    def test_many_keys_differ_and_fill_the_shards_evenly(self):
        image = image_hash([f"image {i}" for i in range(20_000)])
        assert len(image.unique()) == len(image)
        counts = torch.bincount(partition_of(image, 16), minlength=16)
        assert (counts - 1250).abs().max() < 5 * 1250**0.5


@given(image=INT64, shards=st.integers(1, 10_000))
def test_a_partition_is_a_remainder_and_never_negative(image, shards):
    assert partition_of(torch.tensor([image]), shards).item() == image % shards


@given(shards=st.integers(1, 200), world=st.integers(1, 70))
def test_every_partition_has_one_owner_and_owners_share_evenly(shards, world):
    runs = [owned(rank, shards, world) for rank in range(world)]
    assert [shard for run in runs for shard in run] == list(range(shards))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1
    owners = owner_of(torch.arange(shards), shards, world)
    assert owners.tolist() == [rank for rank, run in enumerate(runs) for _ in run]


def mixed(x: int) -> int:
    """The finaliser of SplitMix64, on Python's integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


class TestUniform:
    IMAGE = image_hash([f"{i}" for i in range(2_000)]).repeat_interleave(10)
    SEGMENT = torch.arange(10, dtype=torch.int32).repeat(2_000)

    def draws(self, seed: int = 3, step: int = 100) -> torch.Tensor:
        return uniform(seed, step, self.IMAGE, self.SEGMENT)

    def test_it_is_frozen(self):
        """An interrupted run draws what the uninterrupted one would have drawn."""
        image, segment = image_hash(["a", "b"]).repeat_interleave(2), torch.tensor([0, 1, 0, 1])
        for (seed, step), wanted in {
            (0, 0): "1.be17a89f44545p-1 1.a5830d751b848p-4 1.58091e6d10484p-1 1.bd5df8216698bp-1",
            (7, 12345): "1.d216b83319518p-2 1.de15caf1ca1cdp-1 1.eb118e7857030p-4 1.ad27c515bff5cp-3",
        }.items():
            assert uniform(seed, step, image, segment).tolist() == [
                float.fromhex(f"0x{each}") for each in wanted.split()
            ]

    @given(
        seed=st.integers(0, 2**32 - 1), step=st.integers(0, 2**31), image=INT64, segment=st.integers(0, 999)
    )
    def test_it_is_a_chain_of_splitmix64(self, seed, step, image, segment):
        start = mixed((mixed(seed) + step) % 2**64)
        wanted = (mixed((mixed(image % 2**64 ^ start) + segment) % 2**64) >> 11) / 2**53
        ours = uniform(seed, step, torch.tensor([image]), torch.tensor([segment], dtype=torch.int32))
        assert ours.dtype == torch.float64 and ours.tolist() == [wanted] and 0 <= wanted < 1

    @pytest.mark.parametrize("step", [0, 1, 999])
    def test_it_is_uniform(self, step):
        """χ² of 100 cells, far below what one in a million uniform samples exceeds."""
        counts = torch.histc(self.draws(step=step), 100, 0, 1)
        expected = len(self.IMAGE) / 100
        assert ((counts - expected) ** 2 / expected).sum() < 180

    def test_neighbours_of_a_row_say_nothing_about_it(self):
        """Other segments, images, steps and seeds: correlations within five standard errors of 0."""
        ours = self.draws()
        by_image = ours.view(-1, 10)
        others = {
            "step": (ours, self.draws(step=101)),
            "seed": (ours, self.draws(seed=4)),
            "segment": (by_image[:, :-1].flatten(), by_image[:, 1:].flatten()),
            "image": (by_image[:-1].flatten(), by_image[1:].flatten()),
        }
        for name, pair in others.items():
            assert torch.corrcoef(torch.stack(pair))[0, 1].abs() < 5 / len(pair[0]) ** 0.5, name

    def test_a_row_s_number_does_not_depend_on_its_company(self):
        some = torch.tensor([5, 19_999, 0, 777])
        assert torch.equal(uniform(3, 100, self.IMAGE[some], self.SEGMENT[some]), self.draws()[some])
        assert len(uniform(3, 100, self.IMAGE[:0], self.SEGMENT[:0])) == 0
