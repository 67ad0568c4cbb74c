"""The bridge as a robot: a recorded episode replayed through its topics reaches the same states, and no command
that is late, early, doubled or not finite moves it."""

import functools
import json
import math

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.ros.messages.conversions import (
    effort_to_joint_state,
    pose_to_vector,
    position_to_pose,
    stamp_to_ns,
)
from dp_ros.ros.messages.images import image_to_rgb
from dp_ros.ros.node import qos
from dp_ros.sim.arm import ArmSpec, SimulatedArm, make_arm, rest_command
from dp_ros.sim.experts import demonstrate

pytestmark = pytest.mark.sim
TASK, CAMERA, SIZE_PX, FIRST_SEED = "drawer-open-v3", "gripperPOV", 64, 21
TIMEOUT_S = 2.0


class Operator:
    """A client of the bridge: begins episodes, sends what the test tells it to, keeps what it sees by stamp."""

    def __init__(self, client, mode: str = "lockstep"):
        self.client, self.next_seed = client, FIRST_SEED
        listen = functools.partial(client.listen, best_effort=mode == "realtime")
        self._pose = client.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE_DEEP)
        self._gripper = client.node.create_publisher(JointState, "command/gripper", qos.RELIABLE_DEEP)
        self.images = listen(Image, f"camera/{CAMERA}/image_raw")
        self.poses = listen(PoseStamped, "ee_pose")
        self.joints = client.listen(JointState, "joint_states")
        self.openings = listen(JointState, "gripper/state")
        self.results = client.listen(String, "episode/result")
        self.diagnostics = client.listen(DiagnosticArray, "/diagnostics")
        publishers = (self._pose, self._gripper)
        client.wait_for(lambda: all(p.get_subscription_count() for p in publishers), "the bridge listens")

    def begin(self) -> int:
        """Begin the next episode; its seed."""
        self.client.take_all()
        for received in (self.images, self.poses, self.joints, self.openings):
            received.clear()
        response = self.client.call(Trigger, "episode/reset", Trigger.Request())
        assert (response.success, response.message) == (True, str(self.next_seed))
        self.next_seed += 1
        return self.next_seed - 1

    def send_pose(self, stamp_ns: int, position_m, **fields) -> None:
        msg = position_to_pose(np.zeros(3), (0.0, 1.0, 0.0, 0.0), stamp_ns, "base_link")
        position = msg.pose.position
        position.x, position.y, position.z = (float(value) for value in position_m)
        self._pose.publish(msg)

    def send_gripper(self, stamp_ns: int, effort: float | None) -> None:
        """None: a message without effort, which commands no gripper."""
        msg = effort_to_joint_state(None, stamp_ns)
        msg.effort = [] if effort is None else [float(effort)]
        self._gripper.publish(msg)

    def send(self, stamp_ns: int, command) -> None:
        self.send_pose(stamp_ns, command[:3])
        self.send_gripper(stamp_ns, command[3])

    def newest_ns(self) -> int:
        return max((stamp_to_ns(msg.header.stamp) for msg in self.images), default=-1)

    def observation(self, after_ns: int = -1) -> int:
        """Wait for a picture newer than `after_ns`; its stamp."""
        self.client.wait_for(lambda: self.newest_ns() > after_ns, f"an observation after {after_ns}")
        return self.newest_ns()

    def result(self, seed: int) -> dict:
        def result():
            return [r for r in map(json.loads, (msg.data for msg in self.results)) if r["seed"] == seed]

        (outcome,) = self.client.wait_for(result, f"the result of episode {seed}")
        return outcome

    def by_stamp(self, messages, value) -> np.ndarray:
        """One row a tick, in order; the first observation may have been sent more than once."""
        rows = {stamp_to_ns(msg.header.stamp): value(msg) for msg in messages}
        return np.array([rows[stamp] for stamp in sorted(rows)])


BRIDGE = "dp_ros.ros.nodes.metaworld_bridge"
PARAMETERS = {
    "task": TASK,
    "cameras": [CAMERA],
    "width_px": SIZE_PX,
    "height_px": SIZE_PX,
    "first_seed": FIRST_SEED,
    "max_steps": 200,
    "command_timeout_s": TIMEOUT_S,
    "autostart": True,
}


@pytest.fixture(scope="module")
def bridge(start_shared_node, shared_client):
    node = start_shared_node(BRIDGE, PARAMETERS)
    shared_client.watched.append(node)
    shared_client.wait_until_active("metaworld_bridge")
    return node


@pytest.fixture(scope="module")
def operator(bridge, shared_client):
    return Operator(shared_client)


@pytest.fixture(scope="module")
def arm():
    arm = make_arm(ArmSpec(TASK, (CAMERA,), SIZE_PX, SIZE_PX))
    yield arm
    arm.close()


def home(arm: SimulatedArm) -> np.ndarray:
    """The command that keeps the arm of a new episode where it is, (4,)."""
    return np.append(arm.target_m, 0.0)


def test_a_replayed_expert_episode_reaches_the_same_states(operator, arm):
    """Every tick's pose, joints and opening, the pictures at both ends, and the success."""
    demonstration = demonstrate(arm, operator.next_seed, noise=0.2)
    assert demonstration is not None
    seed = operator.begin()
    stamp_ns = operator.observation()
    for command in demonstration.command[:-1]:
        operator.send(stamp_ns, command)
        stamp_ns = operator.observation(after_ns=stamp_ns)
    operator.send(stamp_ns, demonstration.command[-1])
    result = operator.result(seed)
    assert result == {"seed": seed, "success": True, "steps": len(demonstration.command), "reason": ""}

    last_ns = operator.observation(after_ns=stamp_ns)
    streams = (operator.poses, operator.joints, operator.openings)
    operator.client.wait_for(
        lambda: all(stamp_to_ns(stream[-1].header.stamp) == last_ns for stream in streams), "the last tick"
    )
    first = arm.reset(seed)
    observations, joints = [first], [arm.joint_positions()[1]]
    for command in demonstration.command:
        observations.append(arm.step(command))
        joints.append(arm.joint_positions()[1])
    poses = operator.by_stamp(operator.poses, pose_to_vector)
    np.testing.assert_allclose(poses, [o.ee_pose for o in observations], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        operator.by_stamp(operator.joints, lambda m: list(m.position)), joints, rtol=0, atol=1e-6
    )
    openings = operator.by_stamp(operator.openings, lambda m: m.position[0])
    np.testing.assert_allclose(openings, [o.gripper for o in observations], rtol=0, atol=1e-6)
    pictures = operator.by_stamp(operator.images, image_to_rgb)
    np.testing.assert_array_equal(pictures, [o.images[CAMERA] for o in observations])


def test_a_command_that_does_not_come_fails_the_episode_and_the_next_one_works(operator, arm):
    arm.reset(operator.next_seed)
    seed = operator.begin()
    stamp_ns = operator.observation()
    for _ in range(3):
        operator.send(stamp_ns, home(arm))
        stamp_ns = operator.observation(after_ns=stamp_ns)
    reason = f"no command within {TIMEOUT_S:g} s"
    assert operator.result(seed) == {"seed": seed, "success": False, "steps": 3, "reason": reason}
    operator.diagnostics.clear()
    failed = f"episode {seed} failed: {reason}"
    operator.client.wait_for(
        lambda: failed in [msg.status[0].message for msg in operator.diagnostics], "diagnostics that say so"
    )

    operator.send(stamp_ns, home(arm))  # too late: the episode is over
    assert operator.begin() == seed + 1
    first_ns = operator.observation()
    operator.send(first_ns, home(arm))
    assert operator.observation(after_ns=first_ns) == first_ns + 12_500_000
    assert operator.begin() == seed + 2  # in the middle of an episode
    given_up = {"seed": seed + 1, "success": False, "steps": 1, "reason": "reset"}
    assert operator.result(seed + 1) == given_up


def test_only_the_command_for_this_observation_moves_the_arm_and_only_once(operator, arm):
    """Other messages sent before it change nothing: the state after the awaited command is that of one step."""
    arm.reset(operator.next_seed)
    seed = operator.begin()
    forward = np.add(home(arm), [0.0, 0.01, 0.0, 0.0])
    away = np.add(home(arm), [0.01, -0.01, -0.01, 1.0])
    t0 = operator.observation()
    first_ns = t0
    for wrong_ns in (0, -5_000_000_000, t0 - 12_500_000, t0 - 1, t0 + 1, t0 + 12_500_000, 2**31 * 10**9 - 1):
        operator.send(wrong_ns, away)
    for not_finite in (math.nan, math.inf, -math.inf):
        # Halves of one stamp are taken for one command: these make no other that is finite.
        operator.send(t0, [not_finite, *forward[1:]])
        operator.send(t0, [*forward[:3], not_finite])
    for i in range(40):  # half a command, many times
        operator.send_pose(t0 + 10**9 + i, away[:3])
        operator.send_gripper(t0 + 2 * 10**9 + i, 1.0)
    operator.send(t0, forward)
    t1 = operator.observation(after_ns=t0)
    assert t1 == t0 + 12_500_000
    operator.send(t0, away)  # the same stamp once more: late by now
    operator.send_gripper(t1, 0.5)
    operator.send(t0, away)
    operator.send_pose(t1, forward[:3])  # either half may come first
    t2 = operator.observation(after_ns=t1)
    assert t2 == t1 + 12_500_000
    result = operator.result(seed)  # nothing else has moved it
    assert (result["steps"], result["reason"]) == (2, f"no command within {TIMEOUT_S:g} s")
    arm.advance(forward)
    np.testing.assert_allclose(position_at(operator, t1), arm.observe().ee_position_m, rtol=0, atol=1e-6)
    arm.advance(np.append(forward[:3], 0.5))
    np.testing.assert_allclose(position_at(operator, t2), arm.observe().ee_position_m, rtol=0, atol=1e-6)
    assert {stamp_to_ns(m.header.stamp) for m in operator.poses} == {first_ns, t1, t2}


def test_half_a_command_for_an_observation_that_is_yet_to_come_is_no_half_of_its_command(operator, arm):
    """Its other half may be lost; the next that bears the stamp is of another command."""
    arm.reset(operator.next_seed)
    operator.begin()
    forward = np.add(home(arm), [0.0, 0.01, 0.0, 0.0])
    t0 = operator.observation()
    operator.send_pose(t0 + 12_500_000, np.add(home(arm), [0.01, -0.01, -0.01, 0.0])[:3])
    operator.send(t0, forward)
    t1 = operator.observation(after_ns=t0)
    operator.send_gripper(t1, 0.0)
    operator.send_pose(t1, forward[:3])
    t2 = operator.observation(after_ns=t1)
    operator.client.wait_for(
        lambda: t2 in {stamp_to_ns(m.header.stamp) for m in operator.poses}, "the pose after it"
    )
    arm.advance(forward)
    arm.advance(forward)
    np.testing.assert_allclose(position_at(operator, t2), arm.observe().ee_position_m, rtol=0, atol=1e-6)


def test_gripper_that_is_not_commanded_keeps_what_it_did(operator, arm):
    """Open before the first command, which effort 0 would close a little; then as the last command said."""
    rest = rest_command(arm, arm.reset(operator.next_seed))
    assert rest[3] == -1.0
    operator.begin()
    first_ns = stamp_ns = operator.observation()
    for effort in (None, None, 0.5, None, None):
        operator.send_pose(stamp_ns, rest[:3])
        operator.send_gripper(stamp_ns, effort)
        stamp_ns = operator.observation(after_ns=stamp_ns)
    operator.client.wait_for(
        lambda: stamp_to_ns(operator.openings[-1].header.stamp) == stamp_ns, "the opening"
    )
    own = [msg for msg in operator.openings if stamp_to_ns(msg.header.stamp) >= first_ns]
    openings = operator.by_stamp(own, lambda m: m.position[0])
    expected = [arm.reset(operator.next_seed - 1).gripper]
    for effort in (-1.0, -1.0, 0.5, 0.5, 0.5):
        expected.append(arm.step(np.append(rest[:3], effort)).gripper)
    np.testing.assert_allclose(openings, expected, rtol=0, atol=1e-6)
    assert expected[2] > expected[-1]


def position_at(operator: Operator, stamp_ns: int) -> list[float]:
    (msg, *_) = [m for m in operator.poses if stamp_to_ns(m.header.stamp) == stamp_ns]
    return list(position_of(msg))


def test_in_real_time_only_a_newer_command_of_now_replaces_the_last_one(start_node, client):
    """One that was overtaken on its way, or that is stamped in the future, must not move the arm."""
    small = {"mode": "realtime", "max_steps": 500, "width_px": 16, "height_px": 16}
    client.watched.append(start_node(BRIDGE, {**PARAMETERS, **small}))
    client.wait_until_active("metaworld_bridge")
    operator = Operator(client, "realtime")
    operator.begin()
    client.take_all()  # of before the reset, too
    operator.observation(after_ns=operator.newest_ns())
    client.wait_for(lambda: len(operator.poses) > 3, "the arm")
    start = np.array(position_of(operator.poses[-1]))
    ahead_m = np.array([0.0, 0.1, 0.0])
    forward, back = np.append(start + ahead_m, 0.0), np.append(start - ahead_m, 0.0)
    now_ns = operator.newest_ns()
    operator.send(now_ns + 30 * 10**9, back)
    operator.send(now_ns, forward)
    for late_ns in (12_500_000, 100_000_000, 0):
        operator.send(now_ns - late_ns, back)
    client.wait_for(lambda: position_of(operator.poses[-1])[1] > start[1] + 0.08, "the arm is in front")
    assert min(position_of(msg)[1] for msg in operator.poses) > start[1] - 0.005


def position_of(msg: PoseStamped) -> tuple[float, float, float]:
    return msg.pose.position.x, msg.pose.position.y, msg.pose.position.z
