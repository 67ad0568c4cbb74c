"""Settings of the controller that must fit the policy."""

from __future__ import annotations

from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig


def check_delay(policy: PolicyConfig, runtime: RuntimeConfig) -> None:
    """ConfigError where the chunks of `policy` do not reach beyond `command_delay_s`."""
    ahead = policy.horizons.T_p - policy.horizons.T_o
    ticks = runtime.command_delay_s * policy.rate_hz
    if round(ticks) > ahead:
        raise ConfigError(
            f"command_delay_s {runtime.command_delay_s:g} is {ticks:.1f} ticks, but plans reach {ahead} ahead: give at "
            f"most {ahead / policy.rate_hz:g}, or train with a larger T_p"
        )


def check_continuity(policy: PolicyConfig, runtime: RuntimeConfig) -> None:
    """ConfigError where chunks would be shifted whose positions are absolute: they would never be reached."""
    if runtime.continuity == "shift" and policy.action.position == "absolute":
        raise ConfigError(
            "continuity shift: this policy predicts absolute positions, which must not be shifted: choose switch, "
            "ensemble or inpaint"
        )
