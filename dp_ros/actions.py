"""Action kinds: absolute command positions to what the network predicts, and back.

Training encodes and the controller decodes with the functions here, so the two cannot drift apart. A
position chunk is a path: the sum of its steps. With demonstrations whose executed command was perturbed,
each step is the expert's clean answer measured from the command that really came before it, so the noise
moves the arm but never enters a label (DART, Laskey et al. 2017).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import Horizons, PositionKind

Array = NDArray[np.float64]


def encode_positions(
    action_m: Array, previous_m: Array, padded: NDArray[np.bool_], horizons: Horizons, kind: PositionKind
) -> Array:
    """Clean answers to the kind the network predicts.

    action_m (..., T_p, 3): the clean command of each tick. previous_m (..., T_p, 3): the executed command
    one tick before each. padded (..., T_p): ticks outside the episode, where the arm holds.
    Returns (..., T_p, 3) in metres.
    """
    steps_m = np.where(padded[..., None], 0.0, action_m - previous_m)
    if kind == "delta":
        return steps_m
    path_m = _path_from_reference(steps_m, horizons)
    if kind == "relative":
        return path_m
    now = horizons.T_o - 1
    return previous_m[..., now : now + 1, :] + path_m


def decode_positions(chunk: Array, reference_m: Array, horizons: Horizons, kind: PositionKind) -> Array:
    """The kind the network predicts to absolute commands: the inverse of `encode_positions`.

    chunk (..., T_p, 3); reference_m (..., 3): the last commanded position before the newest frame,
    or before what that frame shows where commands are obeyed late (at the start of an episode the measured one).
    Returns (..., T_p, 3) in metres, base frame.
    """
    if kind == "absolute":
        return np.array(chunk, dtype=np.float64)
    path_m = chunk if kind == "relative" else _path_from_reference(chunk, horizons)
    return np.asarray(reference_m, dtype=np.float64)[..., None, :] + path_m


def _path_from_reference(steps_m: Array, horizons: Horizons) -> Array:
    """Sum the steps so that the path is zero just before the newest frame's action (index T_o - 1)."""
    path = np.cumsum(steps_m, axis=-2)
    now = horizons.T_o - 1
    return path - path[..., now - 1 : now, :] if now > 0 else path
