"""Record a served policy in real time, and compute its commands again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.ros.node import qos

pytestmark = pytest.mark.sim
NODES = "dp_ros.ros.nodes."


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_the_commands_of_a_recorded_policy_are_the_same_to_the_bit(
    start_node, client, push_checkpoint, ros_environment, tmp_path, mode
):
    """The second episode is begun by a leap of time; the recording begins while the policy is active."""
    robot = {
        "task": "tiny-push", "cameras": ["gripperPOV"], "width_px": 64, "height_px": 64, "mode": mode,
        "max_steps": 60, "command_timeout_s": 20.0, "autostart": True,
        "command_delay_s": 0.05 if mode == "realtime" else 0.0,
    }  # fmt: skip
    policy = {
        "checkpoint": str(push_checkpoint), "mode": mode, "use_sim_time": mode == "realtime", "autostart": True,
        "policy_seed": 5, "threads": 1, "command_delay_s": robot["command_delay_s"],
    }  # fmt: skip
    recorder = {"folder": str(tmp_path / "bags"), "cameras": ["gripperPOV"], "mode": mode, "autostart": True}
    nodes = {"metaworld_bridge": robot, "policy_node": policy, "recorder_node": recorder}
    for name, parameters in nodes.items():  # one after the other: each start takes a core for seconds
        client.watched.append(start_node(NODES + name, parameters))
        client.wait_until_active(name)
    results = client.listen(String, "episode/result")
    statuses = []
    client.node.create_subscription(
        String, "record/status", lambda msg: statuses.append(json.loads(msg.data)), qos.LATCHED
    )
    heard = [client.node.resolve_topic_name(topic) for topic in ("policy/ticks", "command/ee_pose")]
    client.wait_for(lambda: all(client.node.count_subscribers(topic) for topic in heard), "it records")

    def call(service: str) -> bool:
        return client.call(Trigger, service, Trigger.Request()).success

    client.wait_for(lambda: call("record/start"), "the recording began")
    for count in (1, 2):
        assert call("episode/reset")
        client.wait_for(lambda count=count: len(results) >= count, "an episode")
    assert call("record/success")
    client.wait_for(lambda: statuses and statuses[-1].get("bag"), "the bag is closed")
    (bag,) = (tmp_path / "bags").iterdir()
    client.wait_for(lambda: statuses[-1]["state"] == "idle", "the bag is closed")

    numbers = tmp_path / "replay.json"
    words = ["replay", str(bag), "--checkpoint", str(push_checkpoint), "--json", str(numbers)]
    done = subprocess.run(
        [sys.executable, "-m", "dp_ros.cli", *words],
        env=ros_environment,
        capture_output=True,
        text=True,
        timeout=300.0,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (score,) = json.loads(numbers.read_text())["bags"]
    assert (score["mode"], score["exact"], score["ok"]) == (mode, True, True)
    assert score["commands"] == score["equal"] > 30
    assert score["plans"] > 5
