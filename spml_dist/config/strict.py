"""The strict model that every section is, and the types of fields that several of them share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1)]
ClassId = Annotated[int, Field(ge=0, lt=254)]
PathOrUrl = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Strict and frozen: no unknown key, no conversion (but an integer may stand for a float and a list
    for a tuple), no inf or nan."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        # Files have lists alone; tuples keep a configuration hashable and unchanged.
        return _as_tuples(value)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
