"""Which rows may answer: by class, by tags of their picture with and, or, not, and by area."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spml_dist.errors import ConfigError

_WORDS = re.compile(r'\s*(?:([()])|"([^"]*)"|([^\s()"]+))')
_OPERATORS = ("and", "or", "not", "(", ")")
OPERATORS_DEEP = 50
"""brackets and nots within one another that an expression may have"""

Term = Callable[[np.ndarray], np.ndarray]
"""[N, K/8] tag bits → [N] bool"""
Words = list[tuple[str, bool]]
"""each with whether it is an operator"""


@dataclass(frozen=True)
class Filter:
    """What a row has to be to answer; all that is set has to hold. Raises ConfigError for no such area."""

    classes: tuple[str, ...] = ()
    """its class, annotated or propagated, is one of these; () = any or none"""
    tags: str = ""
    """an expression of class names with and, or, not and brackets over the tags of its picture; names with
    such a word stand in double quotes. Pictures whose tags are unknown never pass"""
    least_area: float = 0.0
    """share of the picture"""
    most_area: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_area <= self.most_area <= 1:
            given = f"{self.least_area},{self.most_area}"
            raise ConfigError("--area", given, "give two shares of the picture, the smaller first: 0.01,0.5")

    @property
    def everything(self) -> bool:
        """Whether every row passes."""
        return self == Filter()


def passing(
    chosen: Filter,
    classes: Sequence[str],
    label: np.ndarray,
    area: np.ndarray,
    tags: np.ndarray,
    tags_known: np.ndarray,
) -> np.ndarray:
    """[N] bool: rows that pass. label: [N], -1 = none; area: [N]; tags: [N, ⌈K/8⌉] uint8; tags_known: [N].

    Raises ConfigError for a name that is no class, and for an expression that cannot be read.
    """
    allowed = (area >= chosen.least_area) & (area <= chosen.most_area)
    if chosen.classes:
        numbers = [class_number(name, classes, "--only") for name in chosen.classes]
        allowed &= np.isin(label, numbers)
    if chosen.tags:
        allowed &= tags_known.astype(bool) & parsed(chosen.tags, classes)(tags)
    return allowed


def class_number(name: str, classes: Sequence[str], where: str) -> int:
    """The number of a class. Raises ConfigError, with the nearest name, for one that is none."""
    if name not in classes:
        near = difflib.get_close_matches(name, classes, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(classes[:20])}"
        raise ConfigError(f"{where}: no class of the index", repr(name), remedy)
    return list(classes).index(name)


def parsed(expression: str, classes: Sequence[str]) -> Term:
    """What an expression asks of tag bits. Raises ConfigError as `passing`."""
    try:
        term, rest = _either(_split(expression), classes, 0)
    except _Unreadable as why:
        raise _unreadable(expression, str(why)) from why
    if rest:
        raise _unreadable(expression, f"nothing fits before {rest[0][0]!r}")
    return term


class _Unreadable(ValueError):
    """Why an expression cannot be read."""


def _split(expression: str) -> Words:
    """(word, whether it is an operator); words of a name without quotes are joined."""
    found: Words = []
    place = 0
    text = expression.rstrip()
    while place < len(text):
        match = _WORDS.match(text, place)
        if match is None:
            raise _Unreadable("a quote is not closed")
        place = match.end()
        bracket, quoted, plain = match.groups()
        operator = bracket or (plain if plain and plain.lower() in _OPERATORS else None)
        if operator:
            found.append((operator.lower(), True))
        elif plain and found and not found[-1][1] and quoted is None:
            found[-1] = f"{found[-1][0]} {plain}", False
        else:
            found.append((plain or quoted or "", False))
    return found


def _either(words: Words, classes: Sequence[str], depth: int) -> tuple[Term, Words]:
    return _chain("or", np.logical_or, _both, words, classes, depth)


def _both(words: Words, classes: Sequence[str], depth: int) -> tuple[Term, Words]:
    return _chain("and", np.logical_and, _one, words, classes, depth)


def _chain(
    word: str, operation: Callable, part: Callable, words: Words, classes: Sequence[str], depth: int
) -> tuple[Term, Words]:
    """Parts between which an operator stands, from left to right."""
    left, words = part(words, classes, depth)
    while words and words[0] == (word, True):
        right, words = part(words[1:], classes, depth)
        left = _joined(operation, left, right)
    return left, words


def _one(words: Words, classes: Sequence[str], depth: int) -> tuple[Term, Words]:
    if depth > OPERATORS_DEEP:
        raise _Unreadable(f"more than {OPERATORS_DEEP} brackets and nots within one another")
    if not words:
        raise _Unreadable("a class is missing at its end")
    (word, operator), rest = words[0], words[1:]
    if not operator:
        number = class_number(word, classes, "--tags")
        return lambda bits: (bits[:, number >> 3] >> (number & 7) & 1).astype(bool), rest
    if word == "not":
        term, rest = _one(rest, classes, depth + 1)
        return lambda bits: ~term(bits), rest
    if word == "(":
        term, rest = _either(rest, classes, depth + 1)
        if rest[:1] != [(")", True)]:
            raise _Unreadable("a bracket is not closed")
        return term, rest[1:]
    raise _Unreadable(f"a class is missing before {word!r}")


def _joined(operation: Callable, left: Term, right: Term) -> Term:
    return lambda bits: operation(left(bits), right(bits))


def _unreadable(expression: str, why: str) -> ConfigError:
    remedy = f'{why}; write such as: road and not (water or "bare soil")'
    return ConfigError("--tags: cannot be read", repr(expression), remedy)
