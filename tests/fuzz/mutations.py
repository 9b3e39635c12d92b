"""Documents that are nearly right: strategies that change a sound one in a few places, or in a few bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

JUNK = st.one_of(
    st.sampled_from(
        [None, True, False, "", [], {}, [[]], [{}], 0, -1, 1, 2, 3, 255, 254, 256, 2**31, 10**30, 10**400]
    ),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -0.999, 1e-14, 1e300, float("nan"), float("inf"), -float("inf")]),
    st.sampled_from(
        ["a", "0", "007", "é", "e\u0301", "a\\b", "../a", "/a", "a.jpg", "\ud800", "\0", "x" * 300]
    ),
    st.integers(-20, 40),
    st.floats(-20, 40),
    st.lists(st.integers(-2, 14), max_size=8),
    st.text(max_size=6),
)


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three of its values changed, removed, doubled, wrapped or exchanged."""
    tree = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        if not (places := list(_places(tree))):
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        _change(draw, parent, key, places)
    return tree[0] if tree else None


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut, or with bytes replaced, put in or taken out."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        some = draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff", b"9" * 30, b"[" * 200])))
        match draw(st.sampled_from(["cut", "over", "in", "out", "zeros"])):
            case "cut":
                del found[at:]
            case "over":
                found[at : at + len(some)] = some
            case "in":
                found[at:at] = some
            case "out":
                del found[at : at + draw(st.integers(1, 40))]
            case "zeros":
                found[at : at + 8] = bytes(8)
    return bytes(found)


def files(document: Any) -> st.SearchStrategy[bytes]:
    """What a JSON file may hold instead of the document: mostly well-formed, sometimes not."""
    sound = json.dumps(document).encode()
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"", b"\xef\xbb\xbf" + sound])
    changed = mutated(document).map(lambda each: json.dumps(each).encode())
    return st.one_of(changed, changed, changed, changed, damaged(sound), deep)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value below."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _change(draw: st.DrawFn, parent: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    value = parent[key]
    how = draw(
        st.sampled_from(["junk", "junk", "number", "number", "out", "double", "wrap", "other", "name"])
    )
    if how == "number" and type(value) in (int, float):
        parent[key] = draw(
            st.sampled_from([-value, value / 12, value + 0.3, value * 2, value + 1, value - 1, float(value)])
        )
    elif how == "out":
        del parent[key]
    elif how == "double" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif how == "wrap":
        parent[key] = draw(st.sampled_from([[value], {"a": value}, str(value)]))
    elif how == "other":
        container, place = places[draw(st.integers(0, len(places) - 1))]
        parent[key] = copy.deepcopy(container[place])
    elif how == "name" and isinstance(parent, dict):
        name = draw(st.one_of(st.sampled_from(["a", "b", "id", "é", "e\u0301"]), st.text(max_size=3)))
        parent[name] = copy.deepcopy(value)
    else:
        parent[key] = copy.deepcopy(draw(JUNK))  # its lists are the same for all documents
