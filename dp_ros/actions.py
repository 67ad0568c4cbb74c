"""Layout of an action, and the kinds in which a network may predict it.

This module is the only place that knows which numbers of an action vector mean what. The tool's orientation is not
part of the vector: it is kept as measured when the episode begins (`ActionConfig.orientation`).

Training encodes labels and the controller decodes chunks with the functions here, so the two cannot differ. A
position chunk is a path: the sum of its steps. In demonstrations with injected noise, each step leads from the command
that was really executed to the expert's clean command (DART, Laskey et al. 2017): the noise moves the arm, but no
label contains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from dp_ros.schema import Horizons

Array = NDArray[np.float64]
Vectors = TypeVar("Vectors", NDArray[Any], Any)  # numpy arrays and torch tensors index in the same way

PositionKind = Literal["absolute", "relative", "delta"]
GripperKind = Literal["absolute"]
OrientationKind = Literal["hold"]


@dataclass(frozen=True)
class Part:
    """Named numbers of a vector: `size` of them from index `start` on."""

    name: str
    start: int
    size: int
    unit: str

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)

    def of(self, vectors: Vectors) -> Vectors:
        """This part of vectors (..., D): a view (..., size)."""
        return vectors[..., self.slice]


POSITION = Part("position", 0, 3, "m")  # x, y, z in the base frame
GRIPPER = Part("gripper", 3, 1, "-1 open to 1 closed")
PARTS = (POSITION, GRIPPER)
ACTION_DIM = sum(part.size for part in PARTS)

Range = tuple[float, float]
OPENING: Range = (0.0, 1.0)  # measured: closed, open
OPEN_TO_CLOSED: Range = (-1.0, 1.0)  # commanded: open, closed
# Least ranges of the normaliser: scaling less motion to [-1, 1] would amplify the noise of a sensor.
LEAST_RANGE_M: dict[PositionKind, float] = {
    "absolute": 2e-3,
    "relative": 2e-3,
    "delta": 2e-4,
}  # delta: in one tick
LEAST_GRIPPER_SHARE = 0.05  # of OPENING, or of OPEN_TO_CLOSED
_OVERSHOOT = 0.05  # share of a range by which a sensor may exceed it

# The measured state has the same layout; its gripper is an opening, 0 closed to 1 open.
STATE_DIM = ACTION_DIM


def join(position: ArrayLike, gripper: ArrayLike) -> Array:
    """position (..., 3) and gripper (...) -> one vector (..., 4), of an action or of a state."""
    position, gripper = np.asarray(position, dtype=np.float64), np.asarray(gripper, dtype=np.float64)
    return np.concatenate([position, gripper[..., None]], axis=-1)


def gripper_of(vectors: Vectors) -> Vectors:
    """The gripper's number of vectors (..., 4): (...)."""
    return vectors[..., GRIPPER.start]


def to_range(values: ArrayLike, given: Range, ours: Range) -> Array:
    """Values of the range `given`, which may fall, in the range `ours`; ValueError where they are outside of it."""
    values = np.asarray(values, dtype=np.float64)
    share = (values - given[0]) / (given[1] - given[0])
    if not (np.abs(share - 0.5) <= 0.5 + _OVERSHOOT).all():  # NaN fails
        low, high = float(values.min()), float(values.max())
        found = f"{low:g} is" if low == high else f"{low:g} to {high:g} are"
        raise ValueError(f"{found} outside {given[0]:g} to {given[1]:g}")
    if given == ours:
        return values.clip(*ours)
    return np.asarray(ours[0] + np.clip(share, 0, 1) * (ours[1] - ours[0]))


def least_ranges(position: PositionKind, gripper: Range) -> Array:
    """Least range of each dimension of vectors (..., 4), in its own unit; `gripper`: the range of their gripper."""
    return join(
        np.full(POSITION.size, LEAST_RANGE_M[position]), LEAST_GRIPPER_SHARE * (gripper[1] - gripper[0])
    )


def widen(low: ArrayLike, high: ArrayLike, least: ArrayLike) -> tuple[Array, Array]:
    """Limits (D,), moved apart about their middle where they are nearer than `least` (D,)."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    half = np.asarray(least) / 2
    middle = (low + high) / 2
    narrow = high - low < 2 * half
    return np.where(narrow, middle - half, low), np.where(narrow, middle + half, high)


def opening_to_command(opening: float) -> float:
    """Measured opening (0 closed to 1 open) -> the gripper command that asks for it (1 closed to -1 open)."""
    return float(np.clip(1.0 - 2.0 * opening, -1.0, 1.0))


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


def hold(
    actions: NDArray[np.float32], state: NDArray[np.float32], horizons: Horizons, kind: PositionKind
) -> NDArray[np.float32]:
    """Chunks (B, T_p, D), as the network predicts them, in which the arm stays where it is and its gripper as it is.

    actions (B, T_p, D): labels of the same windows, encoded; state (B, T_o, STATE_DIM): of their frames.
    """
    now = horizons.T_o - 1
    still = np.zeros_like(actions)
    if kind == "absolute":
        still[..., POSITION.slice] = state[:, -1:, POSITION.slice]
    still[..., GRIPPER.slice] = actions[:, max(now - 1, 0), GRIPPER.slice][:, None]
    return still


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
