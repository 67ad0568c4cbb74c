"""Order of the messages of one tick: who waits for the last one finds the rest."""

from __future__ import annotations

from typing import Any

import pytest

from dp_ros.ros.nodes.robot_sensors import RobotSensors
from dp_ros.schema import BridgeConfig
from dp_ros.sim.arm import ArmSpec, make_arm

pytestmark = pytest.mark.sim
CAMERA = "camera/gripperPOV/image_raw"


@pytest.mark.parametrize(
    ("mode", "first", "last"), [("lockstep", "/clock", CAMERA), ("realtime", None, "/clock")]
)
def test_clock_follows_the_observation_of_its_time_where_a_timer_of_the_policy_fires_with_it(
    mode: str, first: str | None, last: str
) -> None:
    """In lockstep nothing fires with it, and a reader that waits for the picture has the rest."""
    sent: list[str] = []

    class Publisher:
        def __init__(self, kind: type, topic: str, profile: Any) -> None:
            self.topic_name = topic

        def get_subscription_count(self) -> int:
            return 1

        def publish(self, message: Any) -> None:
            sent.append(self.topic_name)

    config = BridgeConfig.model_validate({"task": "tiny-push", "width_px": 16, "height_px": 16, "mode": mode})
    arm = make_arm(ArmSpec.of(config))
    sensors = RobotSensors(arm, config, Publisher)
    try:
        sensors.publish(arm.reset(0), 0, film=False)
    finally:
        sensors.close()
        arm.close()
    assert {"/clock", "ee_pose", "gripper/state", "camera/gripperPOV/pose", CAMERA} <= set(sent)
    assert sent[-1] == last
    assert first is None or next(topic for topic in sent if topic != "robot_description") == first
