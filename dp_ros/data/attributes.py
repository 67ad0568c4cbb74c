"""Attributes of a dataset, checked before anything is done with them: a dataset may come from anybody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dp_ros.schema import Fit

Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_LARGEST_SIDE = 100_000  # of an array but the first
_LARGEST_CHUNK_BYTES = 2_000_000_000
_MOST_CHUNKS = 4096  # of a file


class _Open(BaseModel):
    """A mapping of which only some keys are ours."""

    model_config = ConfigDict(extra="allow")


class _Collect(_Open):
    task: str = ""
    cameras: list[str] = Field(default_factory=list)
    markers: bool = False


class _Audit(_Open):
    notes: list[str] = Field(default_factory=list)
    max_leap_m: float | None = None


class _Bag(_Open):
    name: str
    pieces: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    repeats: dict[str, float] = Field(default_factory=dict)
    audit: _Audit = _Audit()


class _Convert(_Open):
    audit: _Audit = _Audit()


class _Imported(_Open):
    tasks: list[str] = Field(default_factory=list)


class _Attributes(_Open):
    collect: _Collect = _Collect()
    rate_hz: Positive | None = None
    tasks: list[str] = Field(default_factory=list)
    fit: dict[str, Fit] = Field(default_factory=dict)
    bags: list[_Bag] = Field(default_factory=list)
    convert: _Convert = _Convert()
    lerobot: _Imported = _Imported()


def fault_of(attributes: Mapping[str, Any]) -> str:
    """The first attribute that has another type than ours, and why; empty where all are usable."""
    try:
        _Attributes.model_validate(dict(attributes))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}"
    return ""


def is_numbers(array: Any, ndim: int) -> bool:
    """Whether a zarr array holds plain numbers, `ndim` axes of them, of which all but the first are short."""
    short = all(0 < side <= _LARGEST_SIDE for side in array.shape[1:])
    return bool(array.dtype.kind in "iufb" and array.ndim == ndim and short)


def has_usual_chunks(array: Any, files: int) -> bool:
    """Whether the chunks of a zarr array in so many files are few enough to count, and small enough to read."""
    per_file = array.shards or array.chunks
    numbers = math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True))
    size = math.prod(per_file) * array.dtype.itemsize
    return bool(size <= _LARGEST_CHUNK_BYTES and numbers <= _MOST_CHUNKS * max(1, files))
