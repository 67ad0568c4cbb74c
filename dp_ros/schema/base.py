"""Base of every config: checked values in, one-line errors out.

An invalid config cannot exist, an unknown key is an error that names the nearest valid key, and a value that follows
from others is a property.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dp_ros.errors import USAGE, UserError, shown

Vector3 = tuple[float, float, float]
CameraName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
_LETTERS = 300  # of a value
_SHOWN = 6  # errors; the others are counted


class ConfigError(UserError):
    """A config that cannot be used; one line: where, what is wrong, and what to do."""

    exit_code = USAGE


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    # Fields whose parameters may be set while a node runs; True: all of them.
    changes_at_run_time: ClassVar[bool | tuple[str, ...]] = ()


Model = TypeVar("Model", bound=Config)
Place = Callable[[str, str], str]  # (dotted key, "" for the whole config; message) -> the source of the value


def parse(model: type[Model], data: Mapping[str, Any], where: str, place: Place | None = None) -> Model:
    """Validate a mapping; ConfigError names every wrong key, and `where` or, given `place`, the source of its value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = []
        for each in found[:_SHOWN]:
            key, message = _described(model, each)
            source = place(key, message) if place else ""
            is_named = message.startswith("unknown key") or _names(source, key) or (source and not key)
            lines.append(
                ": ".join(filter(None, (source, "" if is_named else key or model.__name__, message)))
            )
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        prefix = "" if place else f"{where}: "
        raise ConfigError(f"{prefix}{'; '.join(lines)}{more}") from None


def override(config: Model, overrides: Mapping[str, Any], where: str = "command line") -> Model:
    """The config with dotted keys ("gate.max_speed_m_s") replaced, validated again."""
    data = config.model_dump()
    for dotted, value in overrides.items():
        set_dotted(data, dotted, value)
    return parse(type(config), data, where=where)


def set_dotted(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the value of a dotted key in nested mappings, which are made where they are missing."""
    *parents, last = dotted.split(".")
    for key in parents:
        child = data.get(key)
        if not isinstance(child, dict):
            child = data[key] = {}
        data = child
    data[last] = value


def leaves(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all values in nested mappings; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _names(source: str, key: str) -> bool:
    """Whether a source, e.g. "--set lr=3" or "--max-steps", names the key."""
    option = source.partition("=")[0].rpartition(" ")[2]
    return option == key or option.removeprefix("--").replace("-", "_") == key


def _described(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[str, str]:
    """(dotted key, message) of an error of pydantic; the key is "" where the error is about the whole config."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return key, f"unknown key '{key}'; {_nearest(model, location)}"
    value = error.get("input")
    got = "" if isinstance(value, dict | BaseModel) else f" (got {_repr(value)})"
    return key, f"{error['msg'].removeprefix('Value error, ')}{got}"


def _repr(value: Any) -> str:
    """The value as a part of a line."""
    try:
        return shown(repr(value), _LETTERS)
    except ValueError:  # a number of thousands of digits, which Python does not write
        return "a number of thousands of digits"


def _nearest(model: type[BaseModel], location: list[str]) -> str:
    """The valid key that was probably meant, of the same name elsewhere or of a similar one; else the valid keys."""
    *parents, last = location
    siblings = list(_model_at(model, parents).model_fields)
    names: dict[str, str] = {}  # last part of a dotted key -> the first such key
    for dotted in _dotted_keys(model):
        names.setdefault(dotted.rpartition(".")[2], dotted)
    if last in names:
        return f"did you mean '{names[last]}'?"
    if near := difflib.get_close_matches(last, siblings, n=1):
        return f"did you mean '{near[0]}'?"
    near = difflib.get_close_matches(last, names, n=1, cutoff=0.75)
    elsewhere = f"; did you mean '{names[near[0]]}'?" if near else ""
    return f"valid keys: {', '.join(siblings)}{elsewhere}"


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model, the short ones first in each part."""
    for name in model.model_fields:
        yield f"{prefix}{name}"
    for name in model.model_fields:
        child = _model_at(model, [name])
        if child is not model:
            yield from _dotted_keys(child, f"{prefix}{name}.")


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    for key in location:
        field = model.model_fields.get(key)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            break
        model = models[0]
    return model


def as_vector(values: Vector3) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
