"""Command delay of a robot, from a step of its command and the motion that followed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.doctor.findings import Finding, error, ok, warning
from dp_ros.errors import UserError
from dp_ros.poses import position_of
from dp_ros.schema import GateConfig, as_vector

Array = NDArray[np.float64]

LONGEST_S = 1.5  # delays beyond it are not looked for
_GRID_S = 0.005
_SHORTEST_RISE_S = 0.4
_LEAST_SHARE = 0.5  # of the commanded motion: an arm that does less does not follow
_LEAST_FIT = 0.8  # share of the motion's variance that the delayed command explains


@dataclass(frozen=True)
class Delay:
    """Measured latency of the arm: its motion is the command's, `delay_s` later and `share` as large."""

    delay_s: float
    share: float
    fit: float  # share of the measured motion's variance that this explains

    @property
    def follows(self) -> bool:
        return self.share >= _LEAST_SHARE and self.fit >= _LEAST_FIT


@dataclass(frozen=True, kw_only=True)
class Step:
    """Motion that is commanded to measure the delay: up or down, hold, and back."""

    step_m: float  # along z; negative: down
    rise_s: float  # of one way
    hold_s: float = 0.7

    @property
    def duration_s(self) -> float:
        return 2.0 * self.rise_s + self.hold_s

    def offset_m(self, times_s: Array) -> Array:
        """Offset of the command along z at these times: half a cosine up, hold, and back to where it began."""
        up = np.clip(times_s / self.rise_s, 0.0, 1.0)
        down = np.clip((times_s - self.rise_s - self.hold_s) / self.rise_s, 0.0, 1.0)
        return np.asarray(self.step_m * 0.5 * (np.cos(np.pi * down) - np.cos(np.pi * up)))


class StepError(UserError):
    """A step that must not be commanded, or was stopped; one line."""


def plan_step(pose: Array, gate: GateConfig, rate_hz: float, size_m: float) -> Step:
    """A step from the measured pose (7,) that stays in the workspace, below half of the gate's speed and acceleration.

    StepError where the arm is not in the workspace, or has no room above or below.
    """
    low, high = as_vector(gate.workspace_low_m), as_vector(gate.workspace_high_m)
    position = position_of(pose)
    if not ((position >= low) & (position <= high)).all():  # NaN fails
        raise StepError("command delay: the arm is outside the workspace: move it inside, then measure")
    ends = position[2] + size_m, position[2] - size_m
    if not (ends[0] <= high[2] or ends[1] >= low[2]):
        raise StepError(
            f"command delay: no room for {size_m:g} m above or below in the workspace: move the arm"
        )
    speed_m_s = getattr(gate, "max_speed_m_s", 0.0) or getattr(gate, "max_step_m", 0.0) * rate_hz
    acceleration_m_s2 = getattr(gate, "max_acceleration_m_s2", 0.0)
    peak_m_s, peak_m_s2 = np.pi / 2 * size_m, np.pi**2 / 2 * size_m  # of a rise in one second
    rise_s = max(_SHORTEST_RISE_S, peak_m_s / (0.5 * speed_m_s))
    if acceleration_m_s2:
        rise_s = max(rise_s, float(np.sqrt(peak_m_s2 / (0.5 * acceleration_m_s2))))
    return Step(step_m=size_m if ends[0] <= high[2] else -size_m, rise_s=rise_s)


def command_delay(
    commanded_s: Array, commanded_m: Array, measured_s: Array, measured_m: Array, rate_hz: float
) -> Delay | None:
    """The delay at which the commanded motion explains the measured one best, by least squares.

    commanded_m, measured_m: (N,), (M,) along the axis of the step, at rising times of one clock. None where the command
    did not move, or where too little was measured.
    """
    if len(commanded_s) < 3 or len(measured_s) < 3 or not np.ptp(commanded_m) > 0:
        return None
    response = measured_m - measured_m.mean()
    total = float(response @ response)
    best: Delay | None = None
    for delay_s in np.arange(0.0, LONGEST_S + 1.0 / rate_hz, _GRID_S):
        shifted = np.interp(measured_s - delay_s, commanded_s, commanded_m)
        shifted = shifted - shifted.mean()
        power = float(shifted @ shifted)
        if not power > 0:
            continue
        share = float(shifted @ response) / power
        residual = response - share * shifted
        fit = 1.0 - float(residual @ residual) / total if total > 0 else 0.0
        if best is None or fit > best.fit:
            best = Delay(round(float(delay_s), 4), share, fit)
    return best


def judge_delay(measured: Delay | None, configured_s: float, rate_hz: float) -> list[Finding]:
    """The measured delay against the setting `command_delay_s`."""
    where = "command delay"
    if measured is None or not measured.follows:
        share = max(measured.share, 0.0) if measured else 0.0
        return [
            error(
                where,
                f"the arm did {share:.0%} of the commanded step, and not in its shape",
                "check that the driver is enabled and follows command/ee_pose; nothing was measured",
            )
        ]
    shown = f"the arm follows {measured.delay_s * 1e3:.0f} ms after the command ({measured.share:.0%} of the step)"
    tick_s = 1.0 / rate_hz
    what = f"{shown}, command_delay_s is {configured_s:g}"
    if abs(measured.delay_s - configured_s) <= tick_s:
        return [ok(where, what)]
    return [
        warning(
            where,
            what,
            f"set it to what this arm is slower than the one that gave the demonstrations: {measured.delay_s:.2f} if "
            "that one obeyed at once, 0 if it was this arm",
        )
    ]
