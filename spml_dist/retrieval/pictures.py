"""Pictures of an index's rows, out of the shards that they were packed into."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence

import cv2
import numpy as np

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import Reader
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError
from spml_dist.records import Sample
from spml_dist.retrieval.rows import Pack

WIDEST = 480
"""pixels of a picture that is put into a page of results"""


class Pictures:
    """Reads samples of packs. One at a time: readers share the position in a file."""

    def __init__(self, packs: Sequence[Pack], cache: ShardCache | None = None):
        self._packs, self._cache = packs, cache
        self._readers: dict[int, Reader] = {}
        self._lock = threading.Lock()

    def read(self, pack: int, shard: int, place: int, key: str) -> tuple[Sample, bytes]:
        """A sample and the JPEG of its picture.

        Raises DataError, with the reason, where a pack has moved, was packed anew since or is damaged.
        """
        known = self._packs[pack]
        with self._lock:
            if pack not in self._readers:
                self._readers[pack] = Reader(known.folder, read_manifest(known.folder), cache=self._cache)
            reader = self._readers[pack]
            shards = reader.manifest.shards
            if shard >= len(shards) or shards[shard].sha256 != known.digests[shard]:
                remedy = "spml-dist index --add brings it up to date"
                raise DataError(f"{known.folder}: packed anew since it was indexed", None, remedy)
            sample, jpeg = reader.read_encoded(shard, place)
        if sample.key != key:
            raise DataError(f"{known.folder}: holds another image there", sample.key, f"{key} was indexed")
        return sample, jpeg


def embedded(jpeg: bytes, widest: int = WIDEST) -> str:
    """A picture as a data URL for a page, no wider than it is shown."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "a sample that was decoded"
    height, width = image.shape[:2]
    if width > widest:
        size = widest, max(1, round(height * widest / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 84])[1].tobytes()
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
