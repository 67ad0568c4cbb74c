"""ROS parameters derived from `dp_ros.schema`: type, unit, bounds and description are declared once, there."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from dp_ros.schema import Config, ConfigError, Model, parse
from dp_ros.schema.gate import REPLACED, replaced_step

_BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)


def read_config(node: Node, model: type[Model]) -> Model:
    """Declare every field of `model` as a parameter and return the config of their values.

    They are read-only, but for those that a model names in `changes_at_run_time`.

    Nested configs become dotted names ("gate.max_speed_m_s"). ConfigError names the parameter that is wrong.
    """
    values: dict[str, Any] = {}
    _declare(node, model, "", values)
    return parse(model, values, where=f"parameters of {node.get_name()}")


def changed_config(config: Model, prefix: str, parameters: Iterable[Parameter]) -> Model:
    """`config` with the values of those `parameters` that are its fields below `prefix`. ConfigError."""
    values = {
        parameter.name.removeprefix(f"{prefix}."): parameter.value
        for parameter in parameters
        if parameter.name.startswith(f"{prefix}.")
    }
    plain = {
        name: value if isinstance(value, bool | int | float | str | None) else list(value)
        for name, value in values.items()
    }
    return parse(type(config), {**config.model_dump(), **plain}, where=prefix)


def refuse_undeclared(node: Node, rate_hz: Callable[[], float | None] = lambda: None) -> None:
    """ConfigError where `node` was given a parameter that it does not have. ROS would ignore a misspelt limit.

    rate_hz: the node's control rate, to convert a limit per tick of older files.
    """
    declared = node.get_parameters_by_prefix("")
    for name, given in node._parameter_overrides.items():  # rclpy has no public name for them
        if name not in declared and name.rpartition(".")[2] == REPLACED:
            raise ConfigError(f"parameter {name}: {replaced_step(given.value, rate_hz())}")
        if name not in declared and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(declared))}"
            raise ConfigError(f"unknown parameter '{name}'; {hint}")


def _declare(node: Node, model: type[Config], prefix: str, values: dict[str, Any]) -> None:
    changing = model.changes_at_run_time
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            child: dict[str, Any] = {}
            _declare(node, field.annotation, f"{prefix}{name}.", child)
            values[name] = child
            continue
        read_only = changing is not True and name not in (changing or ())
        default = field.get_default()
        default = list(default) if isinstance(default, tuple) else default
        try:
            parameter = node.declare_parameter(
                f"{prefix}{name}", default, _descriptor(field, default, read_only)
            )
        except InvalidParameterTypeException:
            wanted = f"must be a {_type_name(default)}, like {default!r}"
            if isinstance(default, str):
                wanted += "; in YAML, a name like 007 or no needs quotes: '007'"
            raise ConfigError(f"parameter {prefix}{name} of {node.get_name()}: {wanted}") from None
        except InvalidParameterValueException as error:
            raise ConfigError(f"parameter {prefix}{name} of {node.get_name()}: {error}") from None
        value = parameter.value
        if value is None and isinstance(default, list):  # ROS gives an empty list no type, and so no value
            value = []
        if value is None:
            raise ConfigError(
                f"parameter {prefix}{name} of {node.get_name()}: has no value: leave it out, or give one"
            )
        values[name] = value if isinstance(value, bool | int | float | str) else list(value)


def _descriptor(field: FieldInfo, default: Any, read_only: bool) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=field.description or "", read_only=read_only)
    choices = get_args(field.annotation) if get_origin(field.annotation) is not None else ()
    if choices and all(isinstance(choice, str) for choice in choices):
        descriptor.additional_constraints = f"one of: {', '.join(choices)}"
    if default == []:  # an empty list has no type that rclpy could check a value against
        descriptor.dynamic_typing = True
    signs = _bounds(field)
    low, high = signs.get(">=", signs.get(">")), signs.get("<=", signs.get("<"))
    if low is None or high is None:  # a range needs two ends; `read_config` checks the one that there is
        if signs:
            descriptor.additional_constraints = ", ".join(f"{sign} {end:g}" for sign, end in signs.items())
    elif isinstance(default, bool | int):
        descriptor.integer_range = [IntegerRange(from_value=math.ceil(low), to_value=int(high), step=0)]
    elif isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return descriptor


def _bounds(field: FieldInfo) -> dict[str, float]:
    """Sign -> bound of the value: ">" -> 0.0 for a number above zero."""
    signs = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}
    return {
        sign: float(getattr(constraint, name))
        for constraint in field.metadata
        if isinstance(constraint, _BOUNDS)
        for sign, name in signs.items()
        if getattr(constraint, name, None) is not None
    }


def _type_name(default: Any) -> str:
    names = {bool: "boolean", int: "whole number", float: "number with a decimal point", str: "string"}
    return names.get(type(default), "list")
