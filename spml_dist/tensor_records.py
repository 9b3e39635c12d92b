"""A record of tensors as a whole: some of its rows, several records as one, on another device.

A record is a frozen dataclass of `spml_dist.records` whose tensors have their rows in the first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def take(record: Record, index: Tensor | slice) -> Record:
    """The rows at an index or under a mask, copied; those of a slice are views."""
    return _rebuilt(record, lambda value: None if value is None else value[index])


def concatenate(records: Sequence[Record]) -> Record:
    """All rows of at least one record as one, in the given order."""
    names = [field.name for field in fields(records[0])]  # type: ignore[arg-type]
    columns = (torch.cat([getattr(record, name) for record in records]) for name in names)
    return type(records[0])(*columns)


def detached(record: Record) -> Record:
    """The same rows without gradient."""
    return _rebuilt(record, torch.Tensor.detach)


def copied(record: Record) -> Record:
    """A copy of the rows without gradient, which nothing else writes to."""
    return _rebuilt(record, lambda value: value.detach().clone())


def moved(record: Record, device: torch.device) -> Record:
    """The record on a device; what is no tensor stays as it is."""
    return _rebuilt(
        record, lambda value: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
    )


def pinned(record: Record) -> Record:
    """The record in memory that a GPU copies from by itself."""
    return _rebuilt(record, lambda value: value.pin_memory() if isinstance(value, Tensor) else value)


def _rebuilt(record: Record, change: Callable[[Any], Any]) -> Record:
    names = (field.name for field in fields(record))  # type: ignore[arg-type]
    return type(record)(*(change(getattr(record, name)) for name in names))
