"""Packed shards in a plain loop: augmented batches, and a state that goes on exactly after the last one.

spml-dist pack sample --out data/sample
python examples/plain_stream.py data/sample/train
"""

from __future__ import annotations

import sys
from itertools import islice

from spml_dist import Stream


def read(shards: str, batch: int = 4, crop: int = 64, steps: int = 3) -> list[tuple[str, ...]]:
    """Read some batches, stop, and go on elsewhere. Returns the names of each batch's images."""
    # An address works as well as a folder: s3://bucket/train, https://host/train.
    stream = Stream(shards, batch=batch, crop=crop, seed=1)
    names = []
    for images in islice(stream, steps):
        print(images.keys, "image", tuple(images.image.shape), "labels", tuple(images.semantic.shape))
        names.append(images.keys)

    # Plain data: put it into your checkpoint. The stream that takes it goes on with the next batch, in
    # another process too, and on any number of ranks: the images of a step are the same.
    state = stream.state()
    later = Stream(shards, batch=batch, crop=crop, seed=1, start_state=state)
    for images in islice(later, steps):
        print(images.keys, "after the break")
        names.append(images.keys)
    return names


if __name__ == "__main__":
    read(sys.argv[1])
