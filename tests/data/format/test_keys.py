"""Image ids and sample keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.format.keys import image_id_of, key_of


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_every_id_has_a_key_that_gives_it_back(image_id):
    key = key_of(image_id)
    assert image_id_of(key) == image_id
    assert not set(key) & set("./\\:")


def test_ordinary_ids_are_their_own_keys():
    for image_id in ("arbor_woodland_0005", "2007_000032", "Straße 7", "写真-1"):
        assert key_of(image_id) == image_id


def test_dots_and_slashes_are_escaped():
    assert key_of("a/IMG_2024.05.01") == "a%2FIMG_2024%2E05%2E01"
