"""Disturbances of an episode: pictures covered, dark or lost, cameras and objects displaced, commands or plans late.

A disturbance is pure: its effect at tick t follows from its strength, the episode's seed, the ticks and the speed of
this seed undisturbed, and t. Strength 0 has no effect. The numbers drawn from the seed do not depend on the strength,
so that two strengths can be compared seed by seed.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import ConfigError, RuntimeConfig, override
from dp_ros.sim.arm import Array, Image, Observation, SimulatedArm, simulator_of

# Shares of the undisturbed episode between which a single event begins: the arm moves, the task is not yet done.
ONSET = (0.2, 0.6)


@dataclass(frozen=True)
class Disturbance:
    """Base of all disturbances; it disturbs nothing."""

    strength: float = 0.0
    nominal_steps: int = 50  # ticks that the same seed takes undisturbed; the onset follows from it
    nominal_speed_m_s: float = (
        1.0  # the commands' highest speed of the same seed undisturbed, but for the last percent
    )

    kind: ClassVar[str] = "none"
    unit: ClassVar[str] = ""
    says: ClassVar[str] = "nothing"
    defaults: ClassVar[tuple[float, ...]] = (0.0,)  # the strengths of a sweep
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = float("inf")
    whole: ClassVar[bool] = False  # counts ticks or frames

    def __post_init__(self) -> None:
        if not self.low <= self.strength <= self.high:  # also catches NaN
            raise ConfigError(
                f"{self.kind} {self.strength:g} {self.unit}: give {self.low:g} to {self.high:g} {self.unit}"
            )
        if self.whole and self.strength != int(self.strength):
            raise ConfigError(f"{self.kind} {self.strength:g}: give a whole number of {self.unit}")

    def perturb_scene(self, arm: SimulatedArm, seed: int, t: int) -> bool:
        """Change the scene before it is observed at tick t; True where it changed."""
        return False

    def perturb_observation(self, observation: Observation, seed: int, t: int) -> Observation | None:
        """The observation that reaches the policy at tick t; None where it is lost."""
        return observation

    def perturb_command(self, commands: Sequence[Array], rest: Array) -> Array:
        """The command (4,) that moves the arm: `commands` were given, the newest last; `rest` (4,) holds it still."""
        return commands[-1]

    def perturb_runtime(self, runtime: RuntimeConfig, rate_hz: float) -> RuntimeConfig:
        """The settings of a policy that is told of the disturbance; `rate_hz`: ticks in a second."""
        return runtime

    @property
    def plan_ticks(self) -> int | None:
        """Ticks from the request of a plan to its arrival, in real time; None: lockstep, the arm waits for the plan."""
        return None

    def touches(self, seed: int, ticks: int) -> bool:
        """Whether it affects an episode of so many ticks."""
        return bool(self.strength)

    def rng(self, seed: int) -> np.random.Generator:
        """A new generator, seeded by the kind and the seed, not by the strength."""
        return np.random.default_rng([zlib.crc32(self.kind.encode()), seed])

    def onset(self, seed: int) -> int:
        """First tick of the event."""
        return max(1, int(self.rng(seed).uniform(*ONSET) * self.nominal_steps))


class _Once(Disturbance):
    """Base of those that begin at the onset; a short episode may end before it."""

    def touches(self, seed: int, ticks: int) -> bool:
        return bool(self.strength) and self.onset(seed) < ticks


class Occlusion(_Once):
    """Every camera black, as behind a cloth."""

    kind, unit, says = "occlusion", "frames", "every camera black for that many frames"
    defaults, high, whole = (0, 5, 10, 20, 40, 80), 500, True

    def perturb_observation(self, observation: Observation, seed: int, t: int) -> Observation:
        if not 0 <= t - self.onset(seed) < self.strength:
            return observation
        return _with(observation, [np.zeros_like(picture) for picture in observation.images.values()])


class Patch(_Once):
    """A grey square of half the picture's height, at a random place of every picture."""

    kind, unit, says = "patch", "frames", "a grey square over a part of every picture for that many frames"
    defaults, high, whole = (0, 5, 10, 20, 40, 80), 500, True

    def perturb_observation(self, observation: Observation, seed: int, t: int) -> Observation:
        if not 0 <= t - self.onset(seed) < self.strength:
            return observation
        rng = self.rng(seed)
        rng.uniform()  # the onset's
        covered = []
        for picture in observation.images.values():
            height, width = picture.shape[:2]
            side = height // 2
            top, left = rng.integers(0, height - side + 1), rng.integers(0, max(1, width - side + 1))
            picture = picture.copy()
            picture[top : top + side, left : left + side] = 128
            covered.append(picture)
        return _with(observation, covered)


class Brightness(Disturbance):
    """Light times 2 to the power of the strength, as by another exposure."""

    kind, unit, says = "brightness", "stops", "the light of every picture times two to that power"
    defaults, low, high = (-2, -1, -0.5, 0, 0.5, 1), -8, 8

    def perturb_observation(self, observation: Observation, seed: int, t: int) -> Observation:
        exposed = _exposed(self.strength)
        return _with(observation, [exposed[picture] for picture in observation.images.values()])


class DroppedFrames(Disturbance):
    """Each frame but the first lost with that probability; the policy uses its older frames, or holds."""

    kind, unit, says = "dropped-frames", "of the frames", "each frame lost with that probability"
    defaults, high = (0, 0.05, 0.1, 0.2, 0.3, 0.5), 1

    def perturb_observation(self, observation: Observation, seed: int, t: int) -> Observation | None:
        return None if self._lost(seed, t) else observation

    def touches(self, seed: int, ticks: int) -> bool:
        return any(self._lost(seed, t) for t in range(ticks))

    def _lost(self, seed: int, t: int) -> bool:
        luck = np.random.default_rng([zlib.crc32(self.kind.encode()), seed, t]).random()
        return t > 0 and bool(luck < self.strength)


class CameraShift(Disturbance):
    """Every camera of the policy displaced for the whole episode, each in its own random direction."""

    kind, unit, says = "camera-shift", "mm", "every camera displaced that far in a random direction"
    defaults, high = (0, 2, 5, 10, 20, 40), 500

    def perturb_scene(self, arm: SimulatedArm, seed: int, t: int) -> bool:
        if t > 0 or not self.strength:
            return False
        rng = self.rng(seed)
        for camera in arm.spec.cameras:
            arm.move_camera(camera, _unit(rng.normal(size=3)) * self.strength / 1e3)
        return True


class ObjectShift(_Once):
    """The task's object displaced on the table in the middle of the episode."""

    kind, unit, says = (
        "object-shift",
        "mm",
        "the object pushed that far, sideways, in the middle of the episode",
    )
    defaults, high = (0, 10, 20, 40, 60, 80), 500

    def perturb_scene(self, arm: SimulatedArm, seed: int, t: int) -> bool:
        if t != self.onset(seed) or not self.strength:
            return False
        rng = self.rng(seed)
        rng.uniform()  # the onset's
        arm.move_object(np.append(_unit(rng.normal(size=2)), 0.0) * self.strength / 1e3)
        return True


class ActionDelay(Disturbance):
    """Every command reaches the arm some ticks late; until the first does, the arm stays where it is."""

    kind, unit, says = "action-delay", "ticks", "every command that many ticks late"
    defaults: ClassVar[tuple[float, ...]] = (0, 1, 2, 3, 4, 6, 8)
    high, whole = 100, True

    def perturb_command(self, commands: Sequence[Array], rest: Array) -> Array:
        delay = int(self.strength)
        return commands[-1 - delay] if len(commands) > delay else rest


class KnownDelay(ActionDelay):
    """The same delay on a robot where it was measured: `command_delay_s` says it."""

    kind, says = "known-delay", "every command that many ticks late, and command_delay_s set to that"
    defaults: ClassVar[tuple[float, ...]] = (0, 1, 2, 3, 4, 6)  # as far as plans of T_p = 8 reach

    def perturb_runtime(self, runtime: RuntimeConfig, rate_hz: float) -> RuntimeConfig:
        return runtime.model_copy(update={"command_delay_s": self.strength / rate_hz})


class PlanDelay(Disturbance):
    """Real time: every plan arrives some ticks after its request, while the arm goes on along its last chunk.

    The controller knows the delay, as it measures the duration of its plans.
    """

    kind, unit, says = "plan-delay", "ticks", "every plan that many ticks late, while the arm moves on"
    defaults: ClassVar[tuple[float, ...]] = (0, 1, 2, 3, 4, 6)
    high, whole = 100, True

    @property
    def plan_ticks(self) -> int | None:
        return int(self.strength) or None


class SpeedLimit(Disturbance):
    """The gate's limit of speed that much below the undisturbed episode's own; the chunk is slowed along its path."""

    kind, unit, says = "speed-limit", "% slower", "the speed limited that far below its own, along the path"
    defaults, high = (0, 20, 40, 60), 99
    slowing: ClassVar[str] = "path"

    def perturb_runtime(self, runtime: RuntimeConfig, rate_hz: float) -> RuntimeConfig:
        if not self.strength:
            return runtime
        speed_m_s = min(self.nominal_speed_m_s * (1.0 - self.strength / 100), runtime.gate.max_speed_m_s)
        return override(runtime, {"gate.max_speed_m_s": speed_m_s, "gate.slowing": self.slowing})


class SpeedClip(SpeedLimit):
    """The same limit, but each axis is clipped and the chunk goes on by the clock."""

    kind, says = "speed-clip", "the speed limited that far below its own, clipped along each axis"
    slowing = "axes"


NONE = Disturbance()
KINDS: dict[str, type[Disturbance]] = {
    kind.kind: kind
    for kind in (
        Occlusion,
        Patch,
        Brightness,
        DroppedFrames,
        CameraShift,
        ObjectShift,
        ActionDelay,
        KnownDelay,
        PlanDelay,
        SpeedLimit,
        SpeedClip,
    )
}


def possible(task: str) -> list[str]:
    """Kinds of disturbance that a task allows. TaskError."""
    movable = task in simulator_of(task).movable_tasks
    return [kind for kind in KINDS if kind != ObjectShift.kind or movable]


def check_possible(kind: str, task: str) -> None:
    """ConfigError where the task does not allow the kind. TaskError."""
    if kind not in possible(task):
        simulator = simulator_of(task)
        movable = (name.removesuffix(simulator.version) for name in simulator.movable_tasks)
        raise ConfigError(
            f"{kind}: the object of {task} is fixed to the scene and cannot be moved; "
            f"it can in {', '.join(movable)}"
        )


def sweep(text: str) -> list[Disturbance]:
    """ "action-delay" or "action-delay=0,2,4" -> the disturbances of that curve, weakest first, with strength 0."""
    name, given, values = text.partition("=")
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(KINDS)}"
        raise ConfigError(f"unknown disturbance '{name}'; {hint}")
    kind = KINDS[name]
    try:
        strengths = [float(part) for part in values.split(",")] if given else list(kind.defaults)
    except ValueError:
        raise ConfigError(f"'{text}': give strengths with commas between, e.g. {name}=0,1,2") from None
    return [kind(strength) for strength in sorted({0.0, *map(float, strengths)})]


def _with(observation: Observation, pictures: Sequence[Image]) -> Observation:
    return replace(observation, images=dict(zip(observation.images, pictures, strict=True)))


@lru_cache(maxsize=64)
def _exposed(stops: float) -> NDArray[np.uint8]:
    """(256,) new value of each byte of a picture: bytes are sRGB (IEC 61966-2-1), a stop doubles the light."""
    shown = np.arange(256) / 255
    light = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4) * 2.0**stops
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(np.round(shown * 255), 0, 255), dtype=np.uint8)


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))
