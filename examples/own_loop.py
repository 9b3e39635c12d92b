"""SPML's loss in a training loop of your own: any network, any optimiser, weak labels of any kind.

spml-dist pack sample --out data/sample
python examples/own_loop.py data/sample/train 200
"""

from __future__ import annotations

import sys
from itertools import islice

import torch
from torch import nn

from spml_dist import SPMLLoss, Stream


def train(shards: str, steps: int = 200, batch: int = 4, crop: int = 64) -> list[float]:
    """Train a small network on packed images. Returns the loss of every step."""
    torch.manual_seed(0)
    # Yours: images [B, 3, H, W] to embeddings [B, C, h, w] of any norm. Here a quarter of the image's size.
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 32, 1),
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    # All four relations, as published for scribbles; annotation_weight=0 leaves that one out.
    criterion = SPMLLoss(grid=(3, 3))
    losses = []
    for step, images in enumerate(islice(Stream(shards, batch=batch, crop=crop), steps)):
        # Labels are 254 where nobody labelled and 255 where nothing counts. Regions and tags may be None.
        embeddings = network(images.image)
        output = criterion(embeddings, images.semantic, images.regions, images.tags, images.tags_known)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
        print(f"step {step + 1}  loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200)
