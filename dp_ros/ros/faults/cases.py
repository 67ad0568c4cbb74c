"""The faults of the suite: what each is, what must follow, and the parameter that says when it is detected."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dp_ros.evaluation.faults import Bounds, Expected, Fault, Recovery
from dp_ros.resources import share_file
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig, WatchdogConfig, parse
from dp_ros.schema.base import set_dotted
from dp_ros.schema.params_file import limits_of

POLICY: dict[str, Any] = {
    "task": "tiny-push",
    "rate_hz": 20.0,
    "encoder": {
        "cameras": ("gripperPOV",), "height_px": 64, "width_px": 64, "crop_height_px": 56, "crop_width_px": 56,
        "stages": 2, "keypoints": 8, "feature_dim": 16,
    },
    "unet": {"channels": (16, 32), "groups": 4, "step_embedding_dim": 16},
    "diffusion": {"iterations": 20, "sampler_iterations": 2},
    "action": {"position": "absolute"},
}  # fmt: skip
SERVED: dict[str, Any] = {"mode": "realtime", "engine": "torch", "threads": 1}
_BOX: dict[str, Any] = {"workspace_low_m": (-0.2, 0.4, 0.05), "workspace_high_m": (0.2, 0.8, 0.45)}
CLOCK_S = {"clock-jumps-forward": 10.0, "clock-jumps-back": -10.0}
STORM = "participant-storm"
DISK_FULL = "disk-full"  # with a recorder beside the policy
WATCHED = ("policy-sigstop", "policy-sigkill")  # with the watchdog beside the policy


@dataclass(frozen=True)
class Setting:
    """Settings of the processes under test."""

    runtime: RuntimeConfig
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig.model_validate(POLICY))
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    @classmethod
    def of(cls, params_file: Path | None = None) -> Setting:
        """The limits of a parameter file (config/robot.yaml for None), in the workspace of the suite's robot.

        ConfigError where the file is wrong.
        """
        path = params_file or share_file("config/robot.yaml")
        values: dict[str, Any] = dict(SERVED)
        for name, value in limits_of(path).items():
            set_dotted(values, name, value)
        values["gate"] = {**values.get("gate", {}), **_BOX}
        return cls(parse(RuntimeConfig, values, where=str(path)))

    @property
    def bounds(self) -> Bounds:
        """Limits of the commands."""
        gate = self.runtime.gate
        return Bounds(1.0 / self.policy.rate_hz, gate.max_speed_m_s, gate.max_distance_m)


def faults(setting: Setting) -> list[Fault]:
    """All faults, in the order in which the suite runs them."""
    policy, runtime, watchdog = setting.policy, setting.runtime, setting.watchdog
    gate = runtime.gate
    age = gate.max_obs_age_s, f"max_obs_age_s {gate.max_obs_age_s:g}"
    frozen = gate.max_frozen_s, f"max_frozen_s {gate.max_frozen_s:g}"
    turn = 0.0, f"max_turn_rad {gate.max_turn_rad:g}"
    distance = 0.0, f"max_distance_m {gate.max_distance_m:g}"
    chunk_s = (policy.horizons.T_p - policy.horizons.T_o + 1) / policy.rate_hz
    used_up = chunk_s, f"end of the chunk, {chunk_s:g} s"
    beat = watchdog.timeout_s, f"watchdog timeout_s {watchdog.timeout_s:g}"
    at_once = 0.0, "at once"
    contrast = age[0], f"min_contrast {runtime.min_contrast:g}, then {age[1]}"
    wrong = age[0], f"the message, then {age[1]}"

    def fault(
        name: str, about: str, detected: tuple[float, str], recovery: Recovery, expected: Expected = "stops"
    ) -> Fault:
        return Fault(name, about, expected, *detected, recovery)

    return [
        fault("camera-stops", "no more pictures", age, "automatic"),
        fault("camera-freezes", "the same picture with new stamps", frozen, "automatic"),
        fault("camera-lags", "pictures that are 0.4 s late", age, "automatic"),
        fault("camera-black", "black pictures", contrast, "automatic"),
        fault("camera-changes-size", "pictures twice as wide", wrong, "automatic"),
        fault("camera-cut-frame", "one picture with half of its bytes", at_once, "none", "goes on"),
        fault("pose-stops", "no more poses", age, "automatic"),
        fault("pose-freezes", "the same pose with new stamps, while commanded to move", frozen, "automatic"),
        fault("pose-jumps", "poses that are a metre off", distance, "automatic"),
        fault("pose-turns", "the tool is measured half a turn off", turn, "automatic"),
        fault("pose-changes-frame", "poses in another frame", wrong, "automatic"),
        fault("slow-inference", "a plan that does not arrive", used_up, "automatic"),
        fault("nan-output", "plans of NaN", used_up, "automatic"),
        fault("engine-crash", "an exception in the engine", used_up, "automatic"),
        fault("out-of-memory", "MemoryError in the engine", used_up, "automatic"),
        fault("clock-jumps-forward", "the policy's clock, not the sensors', is set forward by 10 s", age, "automatic"),
        fault("clock-jumps-back", "the policy's clock, not the sensors', is set back by 10 s", age, "automatic"),
        fault("messages-late", "all sensors are 0.4 s late", age, "automatic"),
        fault("messages-out-of-order", "each second message comes after the next", at_once, "none", "goes on"),
        fault("messages-duplicated", "each message comes three times", at_once, "none", "goes on"),
        fault("messages-from-the-future", "stamps are 10 s ahead", age, "automatic"),
        fault("other-commander", "a second publisher of commands", at_once, "automatic"),
        fault("emergency-stop", "true on emergency_stop", at_once, "explicit"),
        fault("checkpoint-replaced", "other weights are written over those in use", at_once, "none", "goes on"),
        fault(STORM, "other nodes join and leave the graph all the time", at_once, "none", "goes on"),
        fault(DISK_FULL, "the disk is full while a recorder writes", at_once, "none", "goes on"),
        fault("robot-restarts", "the robot is killed, and starts 0.2 m away", age, "automatic"),
        fault("policy-sigstop", "the policy hangs", beat, "explicit", "is held"),
        fault("policy-sigkill", "the policy is killed", beat, "explicit", "is held"),
    ]  # fmt: skip


def chosen(names: list[str], setting: Setting) -> list[Fault]:
    """The faults with these names, in the suite's order; all for no names. ConfigError for an unknown name."""
    known = faults(setting)
    for name in names:
        if name not in {fault.name for fault in known}:
            raise ConfigError(f"fault '{name}' is not known: {', '.join(fault.name for fault in known)}")
    return [fault for fault in known if not names or fault.name in names]
