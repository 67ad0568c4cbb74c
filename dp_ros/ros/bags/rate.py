"""Control rate of recorded episodes, for conversions without a given rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.audit import usual_period_s
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.episode import COMMANDS, EXPERT, BagEpisode

_WHOLE = 0.01  # a rate this close to a whole number of Hz is that number


@dataclass(frozen=True)
class RecordedRate:
    """Control rate of recordings, and the streams that it comes from."""

    hz: float
    source: str


def recorded_rate(episode: BagEpisode, hold_commands: bool = False) -> RecordedRate:
    """The highest rate at which no picture and no command has to be repeated: that of the slowest camera or command.

    Where a policy drove, its rate. hold_commands: commands are sent on change, so only cameras count. BagError where no
    stream has two samples.
    """
    if len(episode.node_stamps) > 1:
        return RecordedRate(_rate_hz(np.array(list(episode.node_stamps), dtype=np.int64)), "the policy node")
    label = EXPERT[0] if EXPERT[0] in episode.actions else COMMANDS[0]
    sources = {f"camera {name}": stream.stamps_ns for name, stream in episode.cameras.items()}
    if not hold_commands:
        sources[episode.actions[label].topic] = episode.actions[label].stamps_ns
    rates = {name: _rate_hz(stamps) for name, stamps in sources.items() if len(np.unique(stamps)) > 1}
    if not rates:
        raise BagError(f"{episode.info.path}: holds fewer than two pictures and commands: give --rate")
    hz = min(rates.values())
    return RecordedRate(hz, " and ".join(name for name, rate in rates.items() if rate == hz))


def common_rate(rates: Sequence[RecordedRate]) -> RecordedRate:
    """The rate of one dataset: the median of its bags."""
    hz = statistics.median_low(rate.hz for rate in rates)
    return next(rate for rate in rates if rate.hz == hz)


def _rate_hz(stamps_ns: NDArray[np.int64]) -> float:
    """To a whole number, or to three digits."""
    exact = 1.0 / usual_period_s(stamps_ns)
    whole = round(exact)
    return float(whole) if abs(exact - whole) <= _WHOLE * whole else float(f"{exact:.3g}")
