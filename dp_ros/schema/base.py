"""Base of every config: YAML in, one-line errors out.

An invalid config cannot exist, an unknown key is an error that names the nearest valid key, and a value that follows
from others is a property.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dp_ros.errors import USAGE, UserError

Vector3 = tuple[float, float, float]
CameraName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class ConfigError(UserError):
    """A config that cannot be used; one line: where, what is wrong, and what to do."""

    exit_code = USAGE


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Config)


def load_yaml(model: type[Model], path: str | Path, overrides: dict[str, Any] | None = None) -> Model:
    """Read a config from YAML; `overrides` maps dotted keys ("policy.task") to values that replace the file's.

    ConfigError names the file and the key.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found a {type(data).__name__}")
    for dotted, value in (overrides or {}).items():
        _set(data, dotted, value)
    return parse(model, data, where=str(path))


def parse(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Validate a mapping; ConfigError names `where` and the key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_one_line(model, error)}") from None


def override(config: Model, overrides: dict[str, Any], where: str = "command line") -> Model:
    """The config with dotted keys ("gate.max_step_m") replaced, validated again."""
    data = config.model_dump()
    for dotted, value in overrides.items():
        _set(data, dotted, value)
    return parse(type(config), data, where=where)


def parse_assignments(texts: Iterable[str] | None) -> dict[str, Any]:
    """Options "policy.unet.groups=4" -> {"policy.unet.groups": 4}; values are YAML."""
    return dict(parse_assignment(text) for text in texts or ())


def parse_assignment(text: str) -> tuple[str, Any]:
    """ "policy.unet.groups=4" -> ("policy.unet.groups", 4); the value is YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"'{text}' is not KEY=VALUE, e.g. batch_size=32")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"'{text}': the value is not YAML") from None


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        child = data.get(key)
        if not isinstance(child, dict):
            child = data[key] = {}
        data = child
    data[last] = value


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or model.__name__
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        valid = list(_model_at(model, location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1], valid, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key '{key}'; {hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    shown = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
    return f"{key}: {message}{shown}{more}"


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
