"""QoS profiles of our topics, in one place, so that publishers and subscriptions match."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
# Deep, so that a slow reader loses nothing: episode results, pictures for a video.
RELIABLE_DEEP = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE
)
# Best effort, to hear every driver of a gamepad: a joystick repeats its state many times a second.
JOY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
# As tf2's own broadcaster: a message has some of the frames, and a reader needs the newest of each.
TRANSFORMS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
STATIC_TRANSFORMS = QoSProfile(  # deep: each publisher of fixed frames has one latched message
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def observations(mode: str) -> QoSProfile:
    """Profile of observations: lockstep loses no sample, realtime prefers the newest one."""
    return RELIABLE if mode == "lockstep" else qos_profile_sensor_data
