"""Strategies that spoil a sound input a little: bytes, and JSON."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../x", "s3://bucket/x", "pipe:true", "\0", "0" * 32]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw, content: bytes, most: int = 4) -> bytes:
    """The content with some bytes overwritten, inserted, taken out, or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(("flip", "write", "insert", "remove", "cut", "number")))
        if kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            new = draw(st.binary(max_size=8))
            data[place : place + len(new)] = new
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=40))
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "cut":
            del data[place:]
        elif kind == "number":  # a length or a size, as headers hold them
            data[place : place + 4] = draw(
                st.sampled_from((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"))
            )
    return bytes(data)


@st.composite
def spoilt(draw, value: Any) -> Any:
    """A JSON value with a part of it replaced, added or left out."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        place, key, parent = value, None, None
        while isinstance(place, dict | list) and place and draw(st.integers(0, 3)):
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            parent, key = place, draw(st.sampled_from(list(keys)))
            place = parent[key]
        if parent is None:
            return draw(JSON)
        if draw(st.booleans()):
            parent[key] = draw(JSON)
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=4))] = parent.pop(key)
        else:
            parent.append(parent.pop(key))
    return value
