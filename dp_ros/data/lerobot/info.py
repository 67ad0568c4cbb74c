"""Check of `meta/info.json` and of the paths that it gives to files: a folder may come from anybody."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_PLACEHOLDER = re.compile(r"\{(\w+)(?::0?\d{1,2}d)?\}")


class _Open(BaseModel):
    """A mapping of which only some keys are read."""

    model_config = ConfigDict(extra="allow")


class _Feature(_Open):
    dtype: str
    shape: Annotated[list[Annotated[int, Field(ge=1, le=1_000_000)]], Field(min_length=1, max_length=8)]
    names: list[Any] | dict[str, Any] | None = None


class _Info(_Open):
    fps: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
    total_episodes: Annotated[int, Field(ge=0)]
    features: dict[str, _Feature]
    data_path: str | None = None
    video_path: str | None = None


class _Attributes(_Open):
    fit: dict[str, str] = Field(default_factory=dict)


class _Ours(_Open):
    version: Any = None
    attributes: _Attributes = _Attributes()
    seed: list[int]
    noise: list[float]
    tried: list[int]
    length: list[int]


def fault_of_info(info: dict[str, Any]) -> str:
    """The first entry of meta/info.json that cannot be used, and why; empty where all can."""
    return _fault(_Info, info)


def fault_of_ours(facts: dict[str, Any]) -> str:
    """The same of meta/dp_ros.json."""
    return _fault(_Ours, facts)


def _fault(model: type[BaseModel], content: dict[str, Any]) -> str:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}"
    return ""


def stored_path(template: str, **places: str | int) -> str:
    """The path of a file in the folder, e.g. of "data/chunk-{chunk_index:03d}/file.parquet".

    ValueError where the template has more than plain places in it, KeyError for an unknown one, ValueError where the
    path leads out of the folder.
    """
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError(f"the path '{template[:100]}' has more than names in braces")
    path = template.format(**places)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"the path '{path[:100]}' leads out of the folder")
    return path
