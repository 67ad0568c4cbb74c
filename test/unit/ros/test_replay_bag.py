"""Replay of a bag: the same commands, the first that differs, and what a bag lacks; without ROS."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.cli import main
from dp_ros.control.controller import Controller
from dp_ros.control.planner import InlinePlanner
from dp_ros.control.tick_log import TickLog
from dp_ros.data.bags.reader import BagError
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.inference.session import PolicySession
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.ros.bags.replay import replay_bag
from dp_ros.schema import PolicyConfig, RuntimeConfig, TopicMap
from dp_ros.streams import Sample, Selection, to_frame

pytestmark = pytest.mark.usefixtures("one_thread")
DT = 12_500_000
BEGIN_NS = 1_700_000_000_000_000_000
MS = 1_000_000
TICKS = 24
Messages = list[tuple[str, int, Any]]


@pytest.fixture(scope="module")
def make_checkpoint(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("served")

    def make(name: str, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        return save_checkpoint(DiffusionPolicy(tiny_policy, stats), folder / name)

    return make


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint) -> Path:
    return make_checkpoint("served")


@pytest.fixture(scope="module")
def messages(checkpoint: Path, tiny_policy: PolicyConfig, bag_maker) -> Messages:
    """What a recorder hears of an episode in lockstep. Each tick's picture comes to it after the tick."""
    runtime, _ = choose_engine(
        checkpoint, RuntimeConfig(mode="lockstep", engine="torch", threads=1, min_contrast=0.0, policy_seed=3)
    )
    controller = Controller(tiny_policy, runtime, InlinePlanner(load_engine(checkpoint, runtime)))
    texts: list[str] = []
    cameras = tiny_policy.encoder.cameras
    names = (*(f"camera {camera}" for camera in cameras), "ee_pose", "gripper")
    log = TickLog(controller, names, lambda record: texts.append(record.to_json()))
    session = PolicySession.of(checkpoint, runtime, False).to_json()
    found: Messages = [("/policy/session", BEGIN_NS - 3 * MS, bag_maker.text(session))]
    rng = np.random.default_rng(0)
    position = np.array([0.0, 0.6, 0.2])
    log.add("begin")
    for tick in range(TICKS):
        now = BEGIN_NS + tick * DT
        size = tiny_policy.encoder.target(cameras[0]).size
        pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in cameras]
        pose = np.concatenate([position, [0.0, 1.0, 0.0, 0.0]])
        opening = float(rng.random())
        selection = Selection(
            now, tuple(Sample(now, picture) for picture in pictures), Sample(now, pose), Sample(now, opening)
        )
        assert controller.observe(to_frame(selection))
        log.see(None, selection)
        decision = controller.tick(now)
        log.tick(now, decision)
        assert decision is not None
        command = decision.command
        found += [
            (f"/camera/{c}/image_raw", now + 8 * MS, bag_maker.image(now, p))
            for c, p in zip(cameras, pictures, strict=True)
        ]
        found += [
            ("/ee_pose", now + MS, bag_maker.pose(now, position)),
            ("/gripper/state", now + MS, bag_maker.joints(now, position=[opening])),
            *(("/policy/ticks", now + 2 * MS, bag_maker.text(text)) for text in texts),
            ("/command/ee_pose", now + 2 * MS, bag_maker.pose(now, command.position_m)),
            (
                "/command/gripper",
                now + 2 * MS,
                bag_maker.joints(now, effort=[] if command.gripper is None else [command.gripper]),
            ),
        ]
        texts.clear()
        position = command.position_m
    return found


def without(messages: Messages, *topics: str) -> Messages:
    return [message for message in messages if not message[0].startswith(topics)]


Write = Callable[[Messages], Path]


@pytest.fixture
def write(bag_maker, tmp_path: Path) -> Write:
    return lambda messages: bag_maker.write(tmp_path / "bag", messages)


def replayed(bag: Path, checkpoint: Path, **changes: Any):
    return replay_bag(bag, checkpoint, TopicMap(), changes)


def test_every_command_is_the_same_to_the_bit(write: Write, messages: Messages, checkpoint: Path) -> None:
    told: list[tuple[int, int]] = []
    score = replay_bag(write(messages), checkpoint, TopicMap(), {}, lambda *each: told.append(each))
    assert (score.is_exact, score.is_same) == (True, True)
    assert (score.compared, score.equal, score.skipped) == (TICKS, TICKS, {})
    assert score.plans == TICKS // 4
    assert score.line == f"the same, to the bit: {TICKS} commands"
    assert told[-1] == (TICKS + 1, TICKS + 1)


def test_a_command_that_is_not_the_policys_is_named(
    write: Write, messages: Messages, checkpoint: Path, bag_maker, capsys, tmp_path: Path
) -> None:
    """One number of one command is another in the last bit."""
    changed = list(messages)
    at = [i for i, (topic, _, _) in enumerate(messages) if topic == "/command/ee_pose"][10]
    topic, received, (_, msg) = changed[at]
    point = msg.pose.position
    position = [np.nextafter(point.x, 1.0), point.y, point.z]
    changed[at] = topic, received, bag_maker.pose(BEGIN_NS + 10 * DT, position)
    numbers = tmp_path / "replay.json"
    bag = write(changed)
    assert main(["replay", str(bag), "--checkpoint", str(checkpoint), "--json", str(numbers)]) == 1
    output = capsys.readouterr()
    assert f"NOT the same: 1 of {TICKS} commands differ, the first is number 10" in output.out
    assert "1 of 1 bags" in output.err
    (score,) = json.loads(numbers.read_text())["bags"]
    assert (score["ok"], score["equal"], score["first"]["number"]) == (False, TICKS - 1, 10)
    assert 0.0 < score["largest_m"] < 1e-15


def test_a_command_that_only_one_of_the_two_has_is_a_difference(
    write: Write, messages: Messages, checkpoint: Path
) -> None:
    commands = [i for i, (topic, _, _) in enumerate(messages) if topic == "/command/ee_pose"]
    score = replayed(write([m for i, m in enumerate(messages) if i != commands[5]]), checkpoint)
    assert score.first is not None
    assert "the bag has none" in score.first.what


def test_the_end_of_a_bag_may_lack_the_last_command(
    write: Write, messages: Messages, checkpoint: Path
) -> None:
    last = [i for i, (topic, _, _) in enumerate(messages) if topic == "/command/ee_pose"][-1]
    score = replayed(write([m for i, m in enumerate(messages) if i < last]), checkpoint)
    assert (score.is_same, score.compared) == (True, TICKS - 1)


def test_another_seed_of_the_noise_is_found(
    write: Write, messages: Messages, checkpoint: Path, bag_maker
) -> None:
    first = json.loads(messages[0][2][1].data)
    first["runtime"]["policy_seed"] = 4
    others = [(messages[0][0], messages[0][1], bag_maker.text(json.dumps(first))), *messages[1:]]
    score = replayed(write(others), checkpoint)
    assert not score.is_same
    assert score.differing > TICKS // 2


def test_on_another_machine_a_tolerance_applies(
    write: Write, messages: Messages, checkpoint: Path, bag_maker
) -> None:
    first = json.loads(messages[0][2][1].data)
    first["machine"]["processor"] = "another"
    others = [(messages[0][0], messages[0][1], bag_maker.text(json.dumps(first))), *messages[1:]]
    score = replayed(write(others), checkpoint)
    assert (score.is_exact, score.is_same, score.tolerance_m) == (False, True, 0.001)
    assert "the same within 1 mm and 0.02 of the gripper" in score.line
    pose = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    far = pose + 0.0011 * np.eye(7)[0]
    score.compare(0, pose, far, None, None)
    assert score.line.startswith("NOT the same: 1 of")


@pytest.mark.parametrize(
    ("topic", "named"),
    [
        ("/policy/session", "checkpoint, engine and seed of the policy"),
        ("/policy/ticks", "when the policy planned, and from which samples"),
        ("/ee_pose", "measured pose"),
        ("/gripper/state", "measured gripper"),
        ("/command/ee_pose", "commands"),
        ("/camera/left/image_raw", "pictures"),
    ],
)
def test_what_a_bag_lacks_is_one_line_with_the_remedy(
    write: Write, messages: Messages, checkpoint: Path, topic: str, named: str
) -> None:
    bag = write(without(messages, topic))
    with pytest.raises(BagError) as error:
        replayed(bag, checkpoint)
    line = str(error.value)
    assert line.startswith(f"{bag}: has no messages on {topic} ({named})")
    assert "record.launch.py" in line


def test_a_bag_that_begins_in_the_middle_of_an_episode_is_refused_with_the_reason(
    write: Write, messages: Messages, checkpoint: Path
) -> None:
    ticks = [i for i, (topic, _, _) in enumerate(messages) if topic == "/policy/ticks"]
    bag = write([m for i, m in enumerate(messages) if i not in ticks[:5]])
    with pytest.raises(BagError, match=r"no command can be replayed .no episode has begun.: record with"):
        replayed(bag, checkpoint)


def test_a_lost_picture_ends_what_is_known(write: Write, messages: Messages, checkpoint: Path) -> None:
    """The commands before it are compared; those after it are counted as unknown, with the reason."""
    pictures = [i for i, (topic, _, _) in enumerate(messages) if topic == "/camera/left/image_raw"]
    score = replayed(write([m for i, m in enumerate(messages) if i != pictures[9]]), checkpoint)
    assert score.compared == 9
    (why,) = score.skipped
    assert why.startswith("a picture of camera left that the policy knew is not in the bag")
    assert score.skipped[why] == TICKS - 9


def test_other_weights_are_refused_by_their_hash(
    write: Write, messages: Messages, checkpoint: Path, make_checkpoint
) -> None:
    other = make_checkpoint("other", seed=1)
    with pytest.raises(
        BagError, match=r"was recorded with .*served, policy.safetensors [0-9a-f]{12}; .*other has"
    ):
        replayed(write(messages), other)


def test_several_bags_are_judged_each_by_itself(
    messages: Messages, checkpoint: Path, bag_maker, tmp_path: Path, capsys
) -> None:
    bag_maker.write(tmp_path / "bags/a", messages)
    bag_maker.write(tmp_path / "bags/b", without(messages, "/policy/ticks"))
    assert main(["replay", str(tmp_path / "bags"), "--checkpoint", str(checkpoint)]) == 1
    output = capsys.readouterr()
    assert "a: the same, to the bit" in output.out
    assert "b: has no messages on /policy/ticks" in output.out
    assert "1 of 2 bags" in output.err


def test_a_session_of_another_format_is_one_line(
    write: Write, messages: Messages, checkpoint: Path, bag_maker
) -> None:
    session = json.loads(messages[0][2][1].data)
    for changed in ({**session, "format": 2}, {"format": 1}, [], {**session, "runtime": {"unknown": 1}}):
        bag = write([("/policy/session", BEGIN_NS, bag_maker.text(json.dumps(changed))), *messages[1:]])
        with pytest.raises(BagError, match="policy/session"):
            replayed(bag, checkpoint)
        for file in sorted(bag.iterdir()):
            file.unlink()
        bag.rmdir()


def test_a_session_is_read_as_it_was_written(checkpoint: Path) -> None:
    session = PolicySession.of(checkpoint, RuntimeConfig(policy_seed=7), True)
    assert PolicySession.from_json(session.to_json()) == session
    assert len(session.weights_sha256) == 64
    assert replace(session, is_reset_by_time=False) != session
