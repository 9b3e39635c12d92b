"""The memory bank in a trainer that knows nothing of SPML: contrast with the whole data set, not the batch.

    spml-dist pack sample --out data/sample
    python examples/bank_in_your_trainer.py data/sample/train bank 200

The trainer pools its embedding over the labelled pixels of each class of an image and learns by InfoNCE. Once
torch.distributed has a process group, every rank runs the same lines on its own images, the bank is spread
over the ranks, and all of them get the same candidates.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from spml_dist import MemoryBank, Stream

TEMPERATURE = 0.1


def pool(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean embedding of each class of each image: ([P, C] unit, [P] class, [P] image).

    embeddings: [B, C, h, w]; labels: [B, H, W] integers, 254 and above are no class.
    """
    small = interpolate(labels[:, None].float(), size=embeddings.shape[2:])[:, 0].long()
    labelled = small < 254
    image, row, column = labelled.nonzero(as_tuple=True)
    codes, index = torch.unique(image * 256 + small[labelled], return_inverse=True)
    vectors = embeddings[image, :, row, column]
    sums = torch.zeros(len(codes), vectors.shape[1]).index_add(0, index, vectors)
    return normalize(sums, dim=1), codes % 256, codes // 256


def info_nce(prototypes: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor) -> Tensor:
    """Attract those of one's own class among the others, repel the rest; 0 where there is no positive."""
    logits = prototypes @ others.T / TEMPERATURE
    positive = labels[:, None] == their_labels
    has_positive = positive.any(dim=1)
    attracted = logits.masked_fill(~positive, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - attracted)[has_positive].sum() / has_positive.sum().clamp(min=1)


def train(shards: str, folder: Path, steps: int = 200, batch: int = 4, crop: int = 64) -> MemoryBank:
    """Train, and save the bank. Returns it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(64, 32, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    bank: MemoryBank | None = None
    for step, images in enumerate(islice(Stream(shards, batch=batch, crop=crop), steps)):
        if bank is None:
            bank = MemoryBank(dim=32, classes=images.tags.shape[1])
        prototypes, labels, image = pool(network(images.image), images.semantic)
        keys = [images.keys[number] for number in image.tolist()]

        # Ask with this step's segments: the bank answers with what is worth contrasting them with, its
        # nearest rows of one's own class and of others, and some that stand for all the rest.
        memory = bank.candidates(bank.segments(prototypes, labels, keys), step)
        loss = info_nce(prototypes, labels, memory.rows.prototype, memory.rows.semantic)

        optimizer.zero_grad()
        if loss.requires_grad:  # not in the first step, when the bank is empty
            loss.backward()
            optimizer.step()
        # Remember the segments after the step. An image that comes again replaces its own.
        bank.add(prototypes, labels, keys, step=step)
        print(f"step {step + 1}  loss {loss.item():.4f}  bank {len(bank)} rows")
    assert bank is not None, "give at least one step"
    bank.save(folder)
    return bank


if __name__ == "__main__":
    shards, folder, *rest = sys.argv[1:]
    train(shards, Path(folder), int(rest[0]) if rest else 200)
    # Whoever comes later, with any number of processes:
    bank = MemoryBank.load(folder)
    print(f"{len(bank)} rows are in {folder}; look at them with: spml-dist bank inspect {folder}")
