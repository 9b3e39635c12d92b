"""Segment prototypes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.prototypes import prototypes


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_the_sum_of_the_members_over_its_norm(n, count, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    segment = torch.randint(0, count, (n,), generator=generator)
    ours = prototypes(vectors, segment, count)
    for s in range(count):
        members = [vectors[i] for i in range(n) if segment[i] == s]
        expected = sum(members) / sum(members).norm() if members else torch.zeros(4, dtype=torch.float64)
        torch.testing.assert_close(ours[s], expected, rtol=1e-12, atol=1e-12)


def test_gradient_reaches_every_member_and_none_is_made_up_for_an_empty_segment():
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors.requires_grad_()
    segment = torch.tensor([0, 0, 2, 2, 2, 3])
    assert torch.autograd.gradcheck(lambda v: prototypes(v, segment, 5), (vectors,))
    (prototypes(vectors, segment, 5) * torch.arange(3.0)).sum().backward()
    assert torch.isfinite(vectors.grad).all() and (vectors.grad.abs().sum(dim=1) > 0).all()
