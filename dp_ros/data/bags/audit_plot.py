"""Plot of an episode's streams: late, missing and out-of-order samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dp_ros.data.bags.audit import EpisodeAudit, Stamps

_GOOD, _BAD = "tab:blue", "tab:red"


def plot_audit(
    path: Path, title: str, audit: EpisodeAudit, streams: Mapping[str, tuple[Stamps, Stamps]]
) -> None:
    """Write a PNG: for each stream, the time from the previous sample [ms] over the episode [s]."""
    figure = Figure(figsize=(10, 1.3 * len(streams) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(streams), 1, sharex=True, squeeze=False)[:, 0]
    begin = min(int(stamps.min()) for stamps, _ in streams.values() if len(stamps))
    for axis, (name, (stamps, _)) in zip(axes, streams.items(), strict=True):
        intervals_ms = np.diff(stamps) / 1e6
        is_bad = intervals_ms <= 0
        if audit.streams[name].rate_hz > 0:
            is_bad |= intervals_ms > 1.5e3 / audit.streams[name].rate_hz
        at_s = (stamps[1:] - begin) / 1e9
        axis.plot(at_s[~is_bad], intervals_ms[~is_bad], ".", color=_GOOD, markersize=3)
        axis.plot(at_s[is_bad], intervals_ms[is_bad], "x", color=_BAD, markersize=6)
        axis.set_title(f"{name}: {audit.streams[name].rate_hz:.1f} Hz", fontsize=8, loc="left")
        axis.set_ylim(bottom=min(0.0, float(intervals_ms.min(initial=0.0))))
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("time [s]", fontsize=8)
    figure.supylabel("time from the previous sample [ms]", fontsize=8)
    verdict = "pass" if audit.passed else "FAIL: " + "; ".join(audit.reasons)
    figure.suptitle(f"{title}: {verdict}"[:150], fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
