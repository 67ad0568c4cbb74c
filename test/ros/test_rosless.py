"""A client that no one here wrote: `rosless` speaks DDS by itself, in a process that never imports ROS.

It can do all that a robot's client must: it reads our images, poses and results, and publishes both halves of a
command (PoseStamped and JointState). It calls no services, so the bridge begins the episode by itself
(`auto_reset`) when somebody offers commands. Run as a script, this file is that process.
"""

import hashlib
import json
import sys
import time

import numpy as np
import pytest

from dp_ros.ros.messages.conversions import stamp_to_ns
from dp_ros.ros.messages.images import image_to_rgb

TASK, CAMERA, SIZE_PX, SEED, STEPS = "drawer-open-v3", "behindGripper", 48, 7, 6
START_M = (0.0, 0.6, 0.2)


def commands() -> np.ndarray:
    """(STEPS, 4): down and forward, closing."""
    ticks = np.arange(1, STEPS + 1)[:, None]
    return np.hstack([START_M + ticks * (0.002, 0.008, -0.006), np.full((STEPS, 1), 0.75)])


def drive(domain_id: int) -> None:
    """Answer every picture of the episode, then print what was seen: the stamps and pictures, and the result."""
    import rosless

    node = rosless.Node(domain=domain_id)
    results = node.subscribe("/episode/result", "std_msgs/msg/String", reliability="reliable")
    images = node.subscribe(
        f"/camera/{CAMERA}/image_raw", "sensor_msgs/msg/Image", reliability="reliable", depth=100
    )
    grippers = node.advertise("/command/gripper", "sensor_msgs/msg/JointState")
    poses = node.advertise("/command/ee_pose", "geometry_msgs/msg/PoseStamped")
    while not (grippers.subscriber_count and poses.subscriber_count):
        time.sleep(0.01)  # rosless has nothing to wait on
    seen: dict[int, tuple[str, str]] = {}
    while len(seen) <= STEPS:
        if (image := images.read(timeout=60.0)) is None:
            break
        stamp_ns = stamp_to_ns(image.header.stamp)
        if stamp_ns in seen:  # the first one is sent until it is answered
            continue
        pixels = np.ascontiguousarray(image_to_rgb(image))
        x, y, z, effort = map(float, commands()[min(len(seen), STEPS - 1)])
        seen[stamp_ns] = (image.header.frame_id, hashlib.sha256(pixels).hexdigest())
        header = rosless.Message("std_msgs/msg/Header", stamp=image.header.stamp, frame_id="base_link")
        pose = rosless.Message(
            "geometry_msgs/msg/Pose",
            position=rosless.Message("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=rosless.Message("geometry_msgs/msg/Quaternion", x=0.0, y=1.0, z=0.0, w=0.0),
        )
        poses.send(rosless.Message("geometry_msgs/msg/PoseStamped", header=header, pose=pose))
        grippers.send(rosless.Message("sensor_msgs/msg/JointState", header=header, name=["gripper"],
                                      position=[], velocity=[], effort=[effort]))  # fmt: skip
    result = results.read(timeout=60.0)
    assert "rclpy" not in sys.modules
    print("seen", json.dumps(list(seen.items())))
    print("result", result.data if result is not None else "none")


@pytest.mark.sim
def test_a_client_without_ros_sees_our_pictures_and_commands_the_arm(start_node, start_peer, ros_domain):
    """Every picture is the one that the simulator draws, byte for byte, after the commands that were sent."""
    pytest.importorskip("rosless")
    from dp_ros.sim.arm import ArmSpec, make_arm

    start_node(
        "dp_ros.ros.nodes.metaworld_bridge",
        {
            "task": TASK,
            "cameras": [CAMERA],
            "width_px": SIZE_PX,
            "height_px": SIZE_PX,
            "first_seed": SEED,
            "max_steps": STEPS,
            "command_timeout_s": 20.0,
            "auto_reset": True,
            "autostart": True,
        },
    )
    peer = start_peer(__file__, ros_domain)
    arm = make_arm(ArmSpec(TASK, (CAMERA,), SIZE_PX, SIZE_PX))
    observations = [arm.reset(SEED), *(arm.step(command) for command in commands())]
    drawn = [hashlib.sha256(o.images[CAMERA]).hexdigest() for o in observations]
    assert len(set(drawn)) == len(drawn)
    seen = json.loads(peer.expect("seen"))
    result = json.loads(peer.expect("result"))
    stamps = [stamp for stamp, _ in seen]
    assert np.diff(stamps).tolist() == [12_500_000] * STEPS
    assert [picture for _, picture in seen] == [[f"{CAMERA}_optical_frame", digest] for digest in drawn]
    assert result == {"seed": SEED, "success": arm.success, "steps": STEPS, "reason": "time limit"}
    arm.close()


if __name__ == "__main__":
    drive(int(sys.argv[1]))
