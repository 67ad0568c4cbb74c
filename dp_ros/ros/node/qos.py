"""The QoS profiles of our topics, in one place, so that both ends agree."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
# Nothing may be lost by who reads slowly: episode results, pictures for a video.
RELIABLE_DEEP = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def observations(mode: str) -> QoSProfile:
    """Lockstep may lose nothing; realtime prefers the newest sample to an old one."""
    return RELIABLE if mode == "lockstep" else qos_profile_sensor_data
