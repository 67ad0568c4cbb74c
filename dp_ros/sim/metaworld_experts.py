"""Scripted experts of Metaworld's tasks: its own, and six of ours for tasks in which its own gets stuck.

Metaworld's experts leave a stage by distances alone. In some tasks the hand leaves the object before the fingers have
closed on it, or misses the distance at which it would lift by a millimetre. It then presses on the object until that
drifts away, which takes up to 200 ticks, and more with noise. So two pictures that look the same have different labels.
Ours have the same stages, but wait for the fingers and have wider tolerances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from metaworld.policies import ENV_POLICY_MAP
from metaworld.policies.policy import move
from numpy.typing import NDArray

Array = NDArray[np.float64]
_GAIN = 25.0  # moves in 1 / m of distance, clipped to 1: as Metaworld's experts
_OPEN = -1.0


class Expert(Protocol):
    """Metaworld's interface of a scripted policy."""

    def get_action(self, obs: Array) -> NDArray[Any]:
        """Metaworld's action (4,) in [-1, 1] for its observation (39,)."""


@dataclass(frozen=True)
class GraspAndCarry:
    """Goes above the object, down to it, closes the fingers, and carries it. Lengths in m, openings in [0, 1]."""

    carry: Callable[[Array, Array, Array], Array]  # hand, object, goal -> where the hand goes with the object
    grasp_z_m: float = 0.0  # height of the grasp above the object's position
    above_m: float = 0.15  # height above the grasp at which the hand approaches
    aside_m: float = 0.04  # horizontal distance at which the hand is above the object
    reach_m: float = 0.055  # vertical distance at which it holds it ...
    closed: float = 0.7  # ... if the fingers are not wider open than this, as around a puck
    close_m: float = 0.06  # vertical distance at which the fingers begin to close
    effort: float = 0.8  # of the closing fingers

    def get_action(self, obs: Array) -> NDArray[Any]:
        """See `Expert`."""
        hand, opening, goal = obs[:3], obs[3], obs[-3:]
        grasp = _above(obs[4:7], self.grasp_z_m)
        is_above = np.linalg.norm(hand[:2] - grasp[:2]) <= self.aside_m
        height_m = abs(hand[2] - grasp[2])
        if not is_above:
            target = _above(grasp, self.above_m)
        elif height_m > self.reach_m or opening > self.closed:
            target = grasp
        else:
            target = self.carry(hand, obs[4:7], goal)
        effort = self.effort if is_above and height_m <= self.close_m else _OPEN
        return np.append(move(hand, target, _GAIN), effort)


def _above(position: Array, height_m: float) -> Array:
    x, y, z = position
    return np.array([x, y, z + height_m])


def _into_the_hole(hand: Array, peg: Array, goal: Array) -> Array:
    """In front of the box until the peg is in line with the hole, then into it; the box's depth does not matter."""
    hole = np.array([-0.35, goal[1], 0.16])
    return hole if np.linalg.norm(peg[1:] - hole[1:]) <= 0.04 else hole + np.array([0.4, 0.0, 0.0])


def _between_the_posts(hand: Array, ball: Array, goal: Array) -> Array:
    y = goal[1] if abs(hand[0] - goal[0]) <= 0.05 else min(hand[1], goal[1] - 0.14)
    return np.array([goal[0], y, 0.06])


def _along_the_table(hand: Array, puck: Array, goal: Array) -> Array:
    return np.array([goal[0], goal[1], 0.06])


def _to_the_goal(hand: Array, puck: Array, goal: Array) -> Array:
    return goal


def _up_and_to_the_goal(hand: Array, puck: Array, goal: Array) -> Array:
    return goal if abs(hand[2] - goal[2]) <= 0.04 else np.array([hand[0], hand[1], goal[2]])


_OURS: dict[str, Expert] = {
    "peg-insert-side-v3": GraspAndCarry(
        _into_the_hole, above_m=0.3, reach_m=0.035, closed=0.35, close_m=0.15, effort=0.6
    ),
    "pick-out-of-hole-v3": GraspAndCarry(
        _up_and_to_the_goal, grasp_z_m=0.02, aside_m=0.03, reach_m=0.03, close_m=0.05
    ),
    "pick-place-v3": GraspAndCarry(_to_the_goal),
    "push-v3": GraspAndCarry(_along_the_table),
    "push-back-v3": GraspAndCarry(_along_the_table),
    # Metaworld's own pushes the ball, which rolls off.
    "soccer-v3": GraspAndCarry(_between_the_posts, above_m=0.2, reach_m=0.045, closed=0.55, effort=1.0),
}


def expert_of(task: str) -> Expert:
    """The expert of one of Metaworld's tasks, by its full name."""
    if task in _OURS:
        return _OURS[task]
    metaworlds: Any = ENV_POLICY_MAP[task]
    expert: Expert = metaworlds()
    return expert
