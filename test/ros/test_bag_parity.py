"""Live frames of a policy node and frames converted from the bag of the same run are equal, bit for bit."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from dp_ros.actions import join
from dp_ros.data import episodes
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.bags.frames import frames_of
from dp_ros.schema import CollectConfig, ConvertConfig, TopicMap, override

FLAT = ("ee_pose", "gripper", "action", "command")


@pytest.mark.sim
def test_bags_of_the_expert_convert_to_what_direct_collection_makes(tmp_path: Path, ros_domain: int) -> None:
    """Lockstep over DDS, noise and failures included: the same arrays, seeds and settings."""
    from dp_ros.ros.processes.collecting import collect_bags
    from dp_ros.ros.processes.node_process import SessionError
    from dp_ros.train.collect import collect

    config = CollectConfig(
        task="push-v3",  # of its first seeds, the expert fails at one
        episodes=2,
        cameras=("gripperPOV", "behindGripper"),
        width_px=48,
        height_px=40,
        noise=(0.6, 0.3),
        max_steps=90,
        first_seed=100_000,
    )
    kept, tried = collect_bags(
        config.model_copy(update={"episodes": 1}), tmp_path / "bags", domain_id=ros_domain
    )
    assert kept == 1
    kept, tried = collect_bags(config, tmp_path / "bags", domain_id=ros_domain)  # resumes
    assert (kept, len(list((tmp_path / "bags").iterdir()))) == (2, tried)
    with pytest.raises(SessionError, match="was not recorded with these settings"):
        collect_bags(config.model_copy(update={"keep_steps": 3}), tmp_path / "bags", domain_id=ros_domain)

    collect(config, tmp_path / "direct", jobs=1)
    convert([tmp_path / "bags"], tmp_path / "converted", ConvertConfig(), jobs=1)
    direct, converted = episodes.load(tmp_path / "direct"), episodes.load(tmp_path / "converted")
    for name in (*FLAT, "episode_ends"):
        np.testing.assert_array_equal(getattr(converted, name), getattr(direct, name))
    for camera in config.cameras:
        np.testing.assert_array_equal(converted.images[camera], direct.images[camera])
    for name in ("rate_hz", "collect", "tried"):
        assert converted.attributes[name] == direct.attributes[name]


WITNESS = """
import json, sys
import numpy as np
from dp_ros.ros.nodes import policy_node
from dp_ros.ros.node.node_main import run_process
from dp_ros.streams import to_frame

class Witness(policy_node.PolicyNode):
    '''The policy node, and what its frames held.'''
    frames = {}
    def _observe(self, selection):
        taken = super()._observe(selection)
        if taken:
            frame = to_frame(selection)
            pictures = dict(zip(self._policy.encoder.cameras, frame.images))
            self.frames[str(frame.stamp_ns)] = dict(pictures, state=frame.state.copy())
        return taken
    def close(self):
        super().close()
        if self.frames:
            arrays = {f"{at}/{key}": value for at, frame in self.frames.items() for key, value in frame.items()}
            np.savez(sys.argv[1], **arrays)
            self.frames.clear()

run_process(Witness)
"""


class Disturber:
    """Relay between the sensors and all other nodes; it delays, drops and reorders messages."""

    def __init__(self, client, seed: int) -> None:
        from geometry_msgs.msg import PoseStamped
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import Image, JointState

        self._rng = np.random.default_rng(seed)
        self._waiting: list[tuple[float, object, object]] = []
        self.passed = self.dropped = 0
        for kind, name, delay_s in (
            (Image, "camera/gripperPOV/image_raw", 0.03),
            (PoseStamped, "ee_pose", 0.02),
            (JointState, "gripper/state", 0.02),
        ):
            publisher = client.node.create_publisher(kind, name, 50)
            profile = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
            client.node.create_subscription(
                kind, f"undisturbed/{name}", self._taker(publisher, delay_s), profile
            )

    def _taker(self, publisher, delay_s: float):
        def take(msg) -> None:
            if self._rng.random() < 0.03:
                self.dropped += 1
            else:
                due_s = time.monotonic() + self._rng.exponential(delay_s)
                self._waiting.append((due_s, publisher, msg))

        return take

    def pass_on(self) -> None:
        """Publish the messages that are due; call it often."""
        now_s = time.monotonic()
        due = sorted((item for item in self._waiting if item[0] <= now_s), key=lambda item: item[0])
        self._waiting = [item for item in self._waiting if item[0] > now_s]
        for _, publisher, msg in due:
            publisher.publish(msg)
            self.passed += 1


@pytest.mark.sim
def test_live_frames_and_converted_frames_are_identical(
    tmp_path: Path, start_node, client, tiny_checkpoint
) -> None:
    """A policy drives the arm in real time while messages come late, out of order, or not at all."""
    from std_msgs.msg import String
    from std_srvs.srv import Trigger

    from dp_ros.ros.node import qos

    witness = tmp_path / "witness.py"
    witness.write_text(WITNESS)
    live_file = tmp_path / "live.npz"
    disturber = Disturber(client, seed=0)
    sensors = ("camera/gripperPOV/image_raw", "ee_pose", "gripper/state")
    remaps = [part for name in sensors for part in ("-r", f"{name}:=undisturbed/{name}")]
    bridge = {
        "task": "reach-v3", "cameras": ["gripperPOV"], "width_px": 64, "height_px": 64, "mode": "realtime",
        "autostart": True, "max_steps": 100_000, "auto_reset": True,
    }  # fmt: skip
    nodes = [start_node("dp_ros.ros.nodes.metaworld_bridge", bridge, *remaps)]
    folder = {
        "autostart": True,
        "folder": str(tmp_path / "bags"),
        "cameras": ["gripperPOV"],
        "min_free_mb": 1.0,
    }
    nodes.append(start_node("dp_ros.ros.nodes.recorder_node", folder))
    policy = {
        "autostart": True, "use_sim_time": True, "mode": "realtime", "checkpoint": str(tiny_checkpoint),
        "gate.max_obs_age_s": 0.3,
        "gate.max_distance_m": 0.0,  # untrained, it asks for more than the arm can do
    }  # fmt: skip
    nodes.append(start_node("dp_ros.ros.nodes.policy_node", policy, program=[str(witness), str(live_file)]))
    client.watched += nodes
    statuses: list[dict] = []
    client.node.create_subscription(
        String, "record/status", lambda msg: statuses.append(json.loads(msg.data)), qos.LATCHED
    )
    commands = client.listen(String, "policy/verdict")
    client.wait_for(lambda: len(commands) > 20, "policy commands", meanwhile=disturber.pass_on)

    def ask(word: str):
        return client.call(Trigger, f"record/{word}", Trigger.Request(), meanwhile=disturber.pass_on)

    answer = client.wait_for(
        lambda: (a := ask("start")).success and a, "started", meanwhile=disturber.pass_on
    )
    before = len(commands)
    client.wait_for(lambda: len(commands) > before + 300, "a run", meanwhile=disturber.pass_on)
    ask("success")
    client.wait_for(lambda: statuses[-1].get("outcome") == "success", "ended", meanwhile=disturber.pass_on)
    client.watched.clear()
    nodes[-1].close()
    assert disturber.dropped > 0

    config = override(
        ConvertConfig(),
        {"rate_hz": 80.0, "accept_failed": True, "max_age_s": 0.3, "audit.min_duration_s": 0.0},
    )
    bag = Path(answer.message)
    convert([bag], tmp_path / "data", config, jobs=1)
    dataset = episodes.load(tmp_path / "data")
    episode = read_episode(bag, TopicMap())
    ticks = frames_of(episode, config)
    driven = np.array(
        [at in episode.node_stamps for at in ticks.stamps_ns]
    )  # not before it drove, or between
    with np.load(live_file) as live:
        for row in np.flatnonzero(driven):
            stamp_ns = ticks.stamps_ns[row]
            np.testing.assert_array_equal(dataset.images["gripperPOV"][row], live[f"{stamp_ns}/gripperPOV"])
            np.testing.assert_array_equal(
                join(dataset.ee_pose[row], dataset.gripper[row]), live[f"{stamp_ns}/state"]
            )
        assert episode.node_stamps.keys() <= {int(name.partition("/")[0]) for name in live.files}
    # On a busy machine a timer may miss ticks, and a frame between two holes is no episode.
    assert driven.sum() > 0.5 * len(episode.node_stamps) > 100

    # Messages were really late: by stamps alone, some frames would hold other pictures.
    by_stamp = np.sort(episode.cameras["gripperPOV"].stamps_ns)
    newest = by_stamp[np.searchsorted(by_stamp, ticks.stamps_ns[driven], side="right") - 1]
    held = episode.cameras["gripperPOV"].stamps_ns[ticks.pictures["gripperPOV"][driven]]
    assert (held < newest).mean() > 0.05
    assert (np.diff(episode.cameras["gripperPOV"].stamps_ns) < 0).any()


def test_live_cameras_of_several_shapes_fit_as_in_conversion(
    tmp_path: Path, start_node, client, make_checkpoint, bag_maker
) -> None:
    """A 1280x720 camera that is cropped and a 640x480 one that is padded, as the checkpoint says."""
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import Image, JointState

    from dp_ros.ros.messages import conversions, images

    recorded = {"front": (720, 1280), "wrist": (480, 640)}  # (height, width)
    sizes = {
        "front": {"height_px": 64, "width_px": 80, "fit": "crop"},
        "wrist": {"height_px": 60, "width_px": 120, "fit": "pad"},
    }
    checkpoint = make_checkpoint(
        "shapes", encoder={"cameras": tuple(recorded), "pictures": sizes}, rate_hz=20.0
    )
    (tmp_path / "witness.py").write_text(WITNESS)
    live_file, ticks, period_ns = tmp_path / "live.npz", 5, 50_000_000
    rng = np.random.default_rng(0)
    pictures = {
        camera: np.kron(
            rng.integers(0, 256, (ticks, height // 40, width // 40, 3), dtype=np.uint8),
            np.ones((1, 40, 40, 1), dtype=np.uint8),
        )
        for camera, (height, width) in recorded.items()
    }
    node = start_node(
        "dp_ros.ros.nodes.policy_node",
        {"autostart": True, "mode": "lockstep", "checkpoint": str(checkpoint)},
        program=[str(tmp_path / "witness.py"), str(live_file)],
    )
    client.watched.append(node)
    create = client.node.create_publisher
    cameras = {camera: create(Image, f"camera/{camera}/image_raw", 10) for camera in recorded}
    pose, gripper = create(PoseStamped, "ee_pose", 10), create(JointState, "gripper/state", 10)
    answers = client.listen(PoseStamped, "command/ee_pose")
    client.wait_for(
        lambda: (
            all(p.get_subscription_count() for p in (*cameras.values(), pose, gripper))
            and client.node.count_publishers("command/ee_pose")
        ),
        "the node listens",
    )
    client.wait_until_active("policy_node")  # asked for the first time: then the node knows the listener
    begin_ns = 1_700_000_000_000_000_000  # of the bag, too
    for tick in range(ticks):
        stamp_ns = begin_ns + tick * period_ns
        pose.publish(
            conversions.position_to_pose([0.0, 0.6, 0.2], [0.0, 1.0, 0.0, 0.0], stamp_ns, "base_link")
        )
        gripper.publish(conversions.gripper_state(1.0, stamp_ns))
        for camera, publisher in cameras.items():
            publisher.publish(images.rgb_to_image(pictures[camera][tick], stamp_ns, camera))
        client.wait_for(lambda: len(answers) > tick, f"the answer to tick {tick}")  # noqa: B023
    client.watched.clear()
    node.close()

    bag = bag_maker.episode(
        tmp_path / "bag", ticks=ticks, period_ns=period_ns, cameras=tuple(recorded), size=recorded,
        edited=lambda camera, i, _: pictures[camera][i],
    )  # fmt: skip
    config = override(ConvertConfig(), {"rate_hz": 20.0, "pictures": sizes, "accept_failed": True})
    convert([bag], tmp_path / "data", config, jobs=1)
    dataset = episodes.load(tmp_path / "data")
    with np.load(live_file) as live:
        for camera, size in sizes.items():
            assert dataset.images[camera].shape == (ticks, size["height_px"], size["width_px"], 3)
            for tick in range(ticks):
                seen = live[f"{begin_ns + tick * period_ns}/{camera}"]
                np.testing.assert_array_equal(dataset.images[camera][tick], seen)
