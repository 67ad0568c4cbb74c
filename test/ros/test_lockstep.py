"""The same episodes in one process and over real topics: what is measured in-process is what the nodes do."""

import functools
import json
import math
import threading

import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from dp_ros.evaluation.episode import run_episode
from dp_ros.inference.engine import load_engine
from dp_ros.policy.checkpoint import CheckpointError
from dp_ros.poses import angle_rad, orientation_of
from dp_ros.ros.messages.commands import CommandPairing
from dp_ros.ros.messages.conversions import pose_to_vector
from dp_ros.ros.node import qos
from dp_ros.ros.processes.session import evaluate
from dp_ros.schema import RuntimeConfig
from dp_ros.sim.arm import ArmSpec
from dp_ros.sim.tiny_arm import TinyArm

pytestmark = pytest.mark.sim
TASK, SEEDS, MAX_STEPS = "tiny-push", [1, 2], 60
DT_NS = 50_000_000
ENGINE = "torch"
WARM_UP = 0  # seed of the episode before those that are compared


class RecordingArm(TinyArm):
    """The simulated arm, and the commands it was given since its last reset."""

    def reset(self, seed):
        self.commands = []
        return super().reset(seed)

    def step(self, command):
        self.commands.append(np.array(command))
        return super().step(command)


@pytest.fixture(scope="module")
def in_process(push_checkpoint):
    """in_process(policy_seed, seed) -> (result, commands (steps, 4))."""
    arm = RecordingArm(ArmSpec(TASK, ("gripperPOV",), 64, 64))

    @functools.cache
    def run(policy_seed: int, seed: int):
        runtime = RuntimeConfig(mode="lockstep", policy_seed=policy_seed, threads=1, engine=ENGINE)
        engine = load_engine(push_checkpoint, runtime)
        result, _ = run_episode(arm, engine, engine.config, runtime, seed, MAX_STEPS)
        return result, np.stack(arm.commands)

    yield run
    arm.close()


@pytest.fixture
def over_ros(client, ros_domain, push_checkpoint):
    """over_ros(policy_seed, seeds) -> [(result, commands (steps, 4))], by listening to the node's commands.

    A first episode gives this listener the time to connect to the node; its commands are not looked at.
    """
    heard: dict[int, np.ndarray] = {}

    def on_command(stamp_ns, command):
        assert np.array_equal(heard.setdefault(stamp_ns, command), command)

    pairing = CommandPairing(on_command)
    client.node.create_subscription(PoseStamped, "command/ee_pose", pairing.pose, qos.RELIABLE_DEEP)
    client.node.create_subscription(JointState, "command/gripper", pairing.gripper, qos.RELIABLE_DEEP)

    def run(policy_seed, seeds):
        heard.clear()
        outcome = []

        def measure():
            runtime = RuntimeConfig(policy_seed=policy_seed, threads=1, engine=ENGINE)
            report = evaluate(
                push_checkpoint,
                TASK,
                [WARM_UP, *seeds],
                max_steps=MAX_STEPS,
                runtime=runtime,
                on_episode=outcome.append,
                domain_id=ros_domain,
            )
            assert report.results == outcome
            assert len(report.plan_s) >= sum(-(-result.steps // 4) for result in outcome)

        measuring = threading.Thread(target=measure)
        measuring.start()
        client.wait_for(lambda: not measuring.is_alive(), "the evaluation", timeout_s=300.0)
        measured = outcome[1:]
        client.wait_for(lambda: is_complete(measured, episodes()[-len(measured) :]), "all commands")
        # The last observation is answered too, but nothing moves any more.
        return [
            (result, commands[: result.steps])
            for result, commands in zip(measured, episodes()[-len(measured) :], strict=True)
        ]

    def episodes() -> list[np.ndarray]:
        stamps = sorted(heard)
        return np.split(np.stack([heard[s] for s in stamps]), 1 + np.flatnonzero(np.diff(stamps) != DT_NS))

    def is_complete(results, found) -> bool:
        return len(found) == len(results) and all(
            len(commands) >= result.steps for result, commands in zip(results, found, strict=True)
        )

    return run


def test_episodes_over_ros_are_those_in_process_command_by_command(over_ros, in_process):
    """Among the seeds is a success and a failure. Another policy seed makes other commands."""
    before = set(psutil.Process().children(recursive=True))
    for seed, (result, commands) in zip(SEEDS, over_ros(5, SEEDS), strict=True):
        expected, expected_commands = in_process(5, seed)
        assert (result.seed, result.success, result.steps) == (seed, expected.success, expected.steps)
        assert result.reason == expected.reason
        np.testing.assert_array_equal(commands, expected_commands)
        assert not np.array_equal(commands[:20], in_process(0, seed)[1][:20])
    assert {in_process(5, seed)[0].success for seed in SEEDS} == {True, False}
    assert set(psutil.Process().children(recursive=True)) <= before  # both nodes have ended


def test_weights_that_came_before_the_node_loaded_are_refused(push_checkpoint, ros_domain):
    """A training may replace the checkpoint after the evaluation has said what it is of."""
    outcome = []
    with pytest.raises(CheckpointError, match="holds other weights than when this began"):
        evaluate(
            push_checkpoint,
            TASK,
            SEEDS,
            max_steps=2,
            runtime=RuntimeConfig(threads=1, engine=ENGINE),
            on_episode=outcome.append,
            domain_id=ros_domain,
            weights_sha256="0" * 64,
        )
    assert outcome == []


def test_the_expert_commands_alone_and_begins_when_its_readers_are_there(start_node, client):
    """A reader that connects late would miss the first observation of a lossless recording.

    The tool is mounted at 30 degrees: so it is measured, and no command tells it to turn.
    """
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import String
    from std_srvs.srv import Trigger

    from dp_ros.ros.node import qos

    robot = {
        "task": "tiny-push-tilt30",
        "cameras": ["gripperPOV"],
        "width_px": 32,
        "height_px": 32,
        "expert": True,
        "min_readers": 1,
        "autostart": True,
    }
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    client.wait_until_active("metaworld_bridge")

    def reset():
        return client.call(Trigger, "episode/reset", Trigger.Request())

    rival = client.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
    client.wait_for(rival.get_subscription_count, "the rival is connected")
    assert "has too few subscribers yet" in reset().message
    results = client.listen(String, "episode/result")
    poses = client.listen(PoseStamped, "ee_pose")
    answers = client.listen(PoseStamped, "expert/ee_pose")
    commands = client.listen(PoseStamped, "command/ee_pose")
    for kind, topic in (
        (Image, "camera/gripperPOV/image_raw"),
        (JointState, "gripper/state"),
        (JointState, "expert/gripper"),
        (JointState, "command/gripper"),
    ):
        client.listen(kind, topic)
    client.wait_for(lambda: "command/ee_pose has another publisher" in reset().message, "the rival is seen")
    client.node.destroy_publisher(rival)
    client.wait_for(lambda: reset().success, "the episode begins")
    client.wait_for(lambda: results, "the episode ends")
    steps = json.loads(results[0].data)["steps"]
    assert json.loads(results[0].data)["success"]
    client.wait_for(lambda: len(poses) == steps + 1, "every observation")
    client.wait_for(lambda: min(len(commands), len(answers)) >= steps, "every command and label")
    assert len(commands) == len(answers) == steps
    measured = orientation_of(pose_to_vector(poses[0]))
    assert math.degrees(angle_rad(measured, (0.0, 1.0, 0.0, 0.0))) == pytest.approx(30.0)
    for msg in (*poses, *answers, *commands):
        np.testing.assert_array_equal(orientation_of(pose_to_vector(msg)), measured)
