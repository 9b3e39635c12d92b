"""The images that somebody wants labelled: files, folders, packs; each with a name of its own."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from spml_dist.data.format.keys import image_id_of, is_text
from spml_dist.data.format.manifest import FILE as MANIFEST
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.recipes.image_files import decode_image
from spml_dist.data.recipes.images import images_below
from spml_dist.data.stream.reader import Reader
from spml_dist.errors import ConfigError, DataError
from spml_dist.files.address import is_remote

NAMED = 3
"""files that a line names"""


@dataclass(frozen=True)
class ImageSource:
    """One image, wherever it lies. Pickles."""

    name: str
    """of everything that is written of it: a relative path without a suffix"""
    place: str
    """its file; of an image in a pack the pack's folder or address"""
    key: str | None = None
    """in a pack its key"""
    shard: int = 0
    index: int = 0

    def __str__(self) -> str:
        return self.place if self.key is None else f"{self.place}: {self.key}"

    def content(self) -> bytes:
        """The bytes of its file, in a pack of the JPEG. Raises DataError for a file that cannot be read."""
        if self.key is not None:
            return _reader(self.place).read_encoded(self.shard, self.index)[1]
        try:
            return Path(self.place).read_bytes()
        except OSError as error:
            remedy = "give a file that can be read"
            raise DataError(f"{self.place}: cannot be read", error.strerror, remedy) from error

    def read(self) -> tuple[np.ndarray, str]:
        """[H, W, 3] uint8 RGB, upright, and the sha256 of `content`. Raises DataError for no image."""
        content = self.content()
        return decode_image(content, str(self)), hashlib.sha256(content).hexdigest()


def expand(paths: Sequence[str], listed: Iterable[str]) -> list[str]:
    """The paths, with those `listed`, one a line, in the place of `-`."""
    lines = [line.strip() for line in listed] if "-" in paths else []
    return [place for path in paths for place in (filter(None, lines) if path == "-" else [path])]


def find_images(paths: Sequence[str]) -> tuple[list[ImageSource], list[str]]:
    """All images that the paths mean, in a fixed order, and lines about what is left out.

    paths: files, folders (searched to any depth) and packs, which may lie at addresses. Names are paths
    below the folder that holds all of them. Raises DataError for a path that does not exist, a folder or pack
    without images, two images of one name.
    """
    places = list(dict.fromkeys(paths))
    notes = [f"given twice, taken once: {len(paths) - len(places)}"] if len(places) < len(paths) else []
    _require_there(places)
    root = _common_folder([place for place in places if not is_remote(place)])
    found: dict[tuple[str, str | None], ImageSource] = {}
    for place in places:
        if _is_pack(place):
            images = list(_of_pack(place, root))
        elif os.path.isdir(place):
            files, of_folder = images_below(Path(place))
            notes += of_folder
            images = [ImageSource(_below(root, str(file)), str(file)) for file in files]
        else:
            images = [ImageSource(_below(root, place), place)]
        # A file may be given beside its folder.
        found |= {(os.path.abspath(each.place), each.key): each for each in images}
    if not found:
        raise DataError("no image is given", None, "name files, folders or packs")
    return _named_apart(list(found.values())), notes


def require_outside(out: Path, paths: Sequence[str]) -> None:
    """Raise ConfigError if a folder to write to lies inside one that is read."""
    for path in paths:
        if os.path.isdir(path) and out.resolve().is_relative_to(Path(path).resolve()):
            remedy = "it would be read as images the next time: choose a folder outside"
            raise ConfigError(f"--out {out}: inside the images' folder", path, remedy)


def _require_there(places: Sequence[str]) -> None:
    missing = [place for place in places if not is_remote(place) and not os.path.exists(place)]
    if missing:
        more = ", …" if len(missing) > NAMED else ""
        count = f"{len(missing)} of {len(places)}" if len(places) > 1 else None
        named = ", ".join(missing[:NAMED])
        raise DataError(f"{named}{more}: no such file or folder", count, "correct the path")


def _is_pack(place: str) -> bool:
    return is_remote(place) or os.path.isfile(os.path.join(place, MANIFEST))


def _common_folder(places: Sequence[str]) -> str:
    folders = [os.path.abspath(place if os.path.isdir(place) else os.path.dirname(place)) for place in places]
    return os.path.commonpath(folders) if folders else ""


def _below(root: str, place: str) -> str:
    return Path(os.path.relpath(os.path.abspath(place), root)).as_posix()


def _of_pack(place: str, root: str) -> Iterator[ImageSource]:
    below = "." if is_remote(place) else _below(root, place)
    folder = "" if below == "." else f"{below}/"
    reader = _reader(place)
    for shard in range(len(reader.manifest.shards)):
        for index, key in enumerate(reader.keys(shard)):
            image_id = image_id_of(key)
            parts = PurePosixPath(image_id).parts
            # An id is anybody's text; only one that is a path below the folder is used as one.
            plain = image_id if parts and ".." not in parts and parts[0] != "/" else key
            yield ImageSource(f"{folder}{plain}.jpg", place, key, shard, index)


@lru_cache(maxsize=8)
def _reader(place: str) -> Reader:
    return Reader(place, read_manifest(place))


def _named_apart(images: list[ImageSource]) -> list[ImageSource]:
    """Names without the files' suffixes, but for those that differ in nothing else."""
    stems = Counter(_stem(each.name) for each in images)
    named = [
        replace(each, name=_stem(each.name)) if stems[_stem(each.name)] == 1 else each for each in images
    ]
    first: dict[str, ImageSource] = {}
    for each in named:
        if not is_text(each.place):
            raise DataError(f"{each.place}: its name is no UTF-8", None, "rename it")
        if (other := first.setdefault(each.name, each)) is not each:
            raise DataError(f"{each}: two images of one name", str(other), "label them into two folders")
    return named


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
