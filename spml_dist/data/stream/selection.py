"""Which samples of a pack are looked at: some of every kind of annotation, or those of given image ids."""

from __future__ import annotations

import json
import random
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import Manifest
from spml_dist.data.pack.output_store import REJECTED
from spml_dist.data.stream.reader import Reader
from spml_dist.errors import DataError
from spml_dist.files import address

LONGEST_SEARCH = 500
"""images read, at most, for one of each kind of annotation"""
OPEN_TARS = 4
MOST_COMMAS = 20
"""in an image id"""

SamplePlace = tuple[int, int]
"""number of the shard, and of the sample in it"""


@dataclass(frozen=True)
class Selection:
    """Samples drawn from a pack."""

    places: list[SamplePlace]
    searched: int
    """images that were read for them"""
    kinds_not_met: list[str]
    """kinds of annotation that none of those had; "" for no annotation at all"""


def choose(reader: Reader, images: int, seed: int) -> Selection:
    """So many samples, drawn by the seed, among them one of every kind of annotation that is met.

    A kind that none of LONGEST_SEARCH samples has is given up; "not annotated" counts as one.
    """
    manifest = reader.manifest
    missing = set(manifest.counts.kinds) | ({""} if manifest.counts.images_of_no_kind else set())
    drawn: list[SamplePlace] = []
    first: list[SamplePlace] = []
    for place in islice(_shuffled(manifest, seed), max(images, LONGEST_SEARCH)):
        if not missing and len(drawn) >= images:
            break
        drawn.append(place)
        new = missing and missing.intersection(reader.read(*place).kinds or ("",))
        if new:
            missing -= new
            first.append(place)
    return Selection(list(dict.fromkeys([*first, *drawn]))[:images], len(drawn), sorted(missing))


def find(reader: Reader, pieces: Sequence[str]) -> list[SamplePlace]:
    """The samples of the image ids that pieces are, or several with commas between them; in their order.

    Raises DataError for ids that the pack has not.
    """
    single, text = {piece.strip() for piece in pieces if piece.strip()}, ",".join(pieces)
    places: dict[str, SamplePlace] = {}
    for shard in range(len(reader.manifest.shards)):
        ids = enumerate(map(image_id_of, reader.keys(shard)))
        places |= {each: (shard, i) for i, each in ids if each in single or ("," in each and each in text)}
        if single <= places.keys():  # no id can be meant that holds a comma
            break
    ids_given = _ids(pieces, places)
    if any(image_id not in places for image_id in ids_given):
        reasons = _rejected(reader)
        missing = [image_id for image_id in _ids(pieces, {**places, **reasons}) if image_id not in places]
        rejected = [f"{name} was rejected: {reasons[name]}" for name in missing if name in reasons]
        remedy = "; ".join([*rejected, "give image ids that were packed"])
        raise DataError(f"{reader.folder}: no such images", ", ".join(missing), remedy)
    return [places[image_id] for image_id in dict.fromkeys(ids_given)]


def _shuffled(manifest: Manifest, seed: int) -> Iterator[SamplePlace]:
    """All samples in an order drawn by the seed, from a few tars at a time: remote ones are fetched whole."""
    draw = random.Random(seed)
    shards = list(range(len(manifest.shards)))
    draw.shuffle(shards)
    for some in (shards[i : i + OPEN_TARS] for i in range(0, len(shards), OPEN_TARS)):
        places = [(shard, index) for shard in some for index in range(manifest.shards[shard].samples)]
        draw.shuffle(places)
        yield from places


def _ids(pieces: Sequence[str], known: Container[str]) -> list[str]:
    """Image ids: what stands between commas, or the first pieces that are one id."""
    ids, start = [], 0
    while start < len(pieces):
        stops = range(start + 1, min(len(pieces), start + MOST_COMMAS) + 1)
        runs = {stop: ",".join(pieces[start:stop]).strip() for stop in stops}
        stop = next((stop for stop in stops if runs[stop] in known), start + 1)
        ids += [runs[stop]] if runs[stop] else []
        start = stop
    return ids


def _rejected(reader: Reader) -> dict[str, str]:
    """Image ids that the pack has rejected, with the reasons; none where the list is out of reach."""
    lines, path = b"", address.join(reader.folder, REJECTED)
    if reader.manifest.rejected:
        with suppress(OSError, DataError):
            remote = address.is_remote(path)
            lines = address.read(path, address.RETRY_SECONDS) if remote else Path(path).read_bytes()
    return {entry["image"]: entry["reason"] for entry in map(json.loads, lines.splitlines())}
