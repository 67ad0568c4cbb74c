"""A policy that is told what to do, over topics: the sentence in force, another one while it moves, none; and a
simulated robot that changes its task."""

import functools
import logging
import queue
import threading
import time

import numpy as np
import pytest
import rclpy.parameter
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.serialization import serialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.evaluation.rollout import evaluate_in_process
from dp_ros.evaluation.told import Change
from dp_ros.evaluation.video_frames import with_policy_view
from dp_ros.policy import instructions
from dp_ros.policy.checkpoint_config import instructions_of
from dp_ros.ros.node.qos import LATCHED
from dp_ros.ros.nodes.policy_instruction import InstructionInput
from dp_ros.ros.processes.session import evaluate
from dp_ros.schema import RuntimeConfig
from test.ros.conftest import TINY_TASKS, TOLD_DIM

pytestmark = pytest.mark.sim


def set_parameter(client, node: str, name: str, value: str) -> str:
    """Why it was refused; empty where it was not."""
    request = SetParameters.Request()
    request.parameters.append(rclpy.parameter.Parameter(name, value=value).to_parameter_msg())
    (result,) = client.call(SetParameters, f"{node}/set_parameters", request).results
    return "" if result.successful else result.reason


@pytest.fixture
def robot(start_node, client, told):
    """The tiny arm and the policy in real time, active."""
    bridge = {"task": TINY_TASKS[0], "mode": "realtime", "width_px": 64, "height_px": 64, "auto_reset": True}
    bridge |= {"max_steps": 100_000, "autostart": True, "command_delay_s": 0.05}
    policy = {
        "checkpoint": str(told),
        "mode": "realtime",
        "threads": 1,
        "use_sim_time": True,
        "autostart": True,
    }
    policy["gate"] = {"max_distance_m": 0.0}  # untrained, it pushes against the end of the arm's reach
    nodes = [
        start_node("dp_ros.ros.nodes.metaworld_bridge", bridge),
        start_node("dp_ros.ros.nodes.policy_node", {**policy, "command_delay_s": 0.05}),
    ]
    client.watched += nodes
    return nodes


def test_the_sentence_may_change_while_the_arm_moves(robot, client):
    status = client.listen(String, "policy/status", latched=True)
    verdicts = client.listen(String, "policy/verdict")
    diagnostics = client.listen(DiagnosticArray, "/diagnostics")
    sentences = client.node.create_publisher(String, "policy/instruction", LATCHED)
    log = robot[1]

    def holds(since: int) -> list[bool]:
        return [msg.data.startswith("hold") for msg in verdicts[since:]]

    def moves(since: int) -> bool:
        return not all(holds(since))

    def instruct(line: str, tell) -> int:
        """Tell it something else, which the node logs and holds for; how many verdicts came before it had logged it.

        Not by the status: where a busy machine holds for want of a plan already, that does not change.
        """
        client.take_all()
        before, lines = len(verdicts), log.log.count(line)
        tell()
        client.wait_for(lambda: log.log.count(line) > lines, line)
        client.state("policy_node")  # its answer comes after the verdicts of before
        client.take_all()
        heard = len(verdicts)
        client.wait_for(lambda: any(holds(before)), "it holds")
        return heard

    def stays(heard: int) -> None:
        client.wait_for(lambda: len(verdicts) > heard + 5, "ticks")
        assert not moves(heard)

    def publish(text: str):
        return lambda: sentences.publish(String(data=text))

    def set_to(text: str):
        def set_it() -> None:
            assert set_parameter(client, "policy_node", "instruction", text) == ""

        return set_it

    client.wait_for(lambda: any("no instruction" in msg.data for msg in status), "a status that says why")
    stays(0)
    heard = instruct("instruction: 'push it'", publish("Push it!"))
    client.wait_for(lambda: moves(heard), "it moves")
    heard = instruct("instruction: 'lean and push it'", publish("lean and push it"))
    client.wait_for(lambda: moves(heard), "it moves otherwise")
    heard = instruct("no instruction: holding", publish(""))
    stays(heard)
    count = len(diagnostics)
    client.wait_for(
        lambda: any("no instruction" in msg.status[0].message for msg in diagnostics[count:]), "diagnostics"
    )
    heard = instruct("instruction: 'lean and push it'", set_to("Lean and push it."))
    client.wait_for(lambda: moves(heard), "it moves, told by the parameter")

    heard = instruct("instruction: 'push it'", publish("push it"))
    client.wait_for(lambda: moves(heard), "it moves, told by the topic")
    # The parameter has this value already: it was set before the topic's sentence.
    heard = instruct("instruction: 'lean and push it'", set_to("lean and push it"))
    client.wait_for(lambda: moves(heard), "it moves, told by the parameter again")
    heard = instruct("no instruction: holding", set_to(""))
    stays(heard)
    heard = instruct("instruction: 'push it'", publish("push it"))
    client.wait_for(lambda: moves(heard), "it moves again")

    bad = serialize_message(String(data="push \x01\x01 it")).replace(b"\x01\x01", b"\xff\xfe")
    for message, says in (
        (String(data="x" * 10_000), "the instruction has 10000 letters, at most 300 are read"),
        (bad, "is not UTF-8 text: send it as UTF-8"),
        (
            String(data="make me a sandwich"),
            "'make me a sandwich' is not a known one, and the sentence encoder is not",
        ),
    ):
        stays(instruct(says, functools.partial(sentences.publish, message)))
        heard = instruct("instruction: 'push it'", publish("push it"))
        client.wait_for(lambda: moves(heard), "it moves again")  # noqa: B023
        assert log.log.count(says) == 1, "told twice"
    refused = set_parameter(client, "policy_node", "instruction", "y" * 400)
    assert refused.startswith("the instruction has 400 letters")
    client.take_all()
    heard = len(status)
    end = time.monotonic() + 0.3
    client.wait_for(lambda: time.monotonic() > end, "a moment")
    assert not any("instruction" in msg.data for msg in status[heard:]), "a refused parameter stopped the arm"


def test_an_unknown_sentence_holds_the_arm_while_it_is_encoded(told, monkeypatch):
    """The newest sentence counts, whichever is encoded first."""
    gates = {"roll it": threading.Event(), "spin it": threading.Event()}
    encoded = np.eye(TOLD_DIM, dtype=np.float32)[:2]  # alike the two known ones

    def encode(texts):
        if texts == ["drop it"]:
            raise RuntimeError("no memory")
        gates[texts[0]].wait(120.0)
        return encoded[list(gates).index(texts[0])][None]

    monkeypatch.setattr(instructions, "encoder_folder", lambda text: None)
    monkeypatch.setattr(instructions, "embed", encode)
    done, says, hear = queue.Queue(), [], []

    class Guard:
        def __init__(self, callback):
            self.trigger = lambda: done.put(callback)

    source = InstructionInput(
        instructions_of(told),
        says.append,
        False,
        lambda kind, topic, callback, profile: hear.append(callback),
        Guard,
        logging.getLogger("test"),
    )
    source.say("Roll it")
    source.say("spin it")
    assert says == [None, None]
    assert source.problem == "'spin it' is being encoded"
    gates["roll it"].set()
    done.get(timeout=120.0)()
    assert says == [None, None], "an old sentence took effect"
    gates["spin it"].set()
    done.get(timeout=120.0)()
    assert (says[2] == encoded[1]).all()
    assert (source.text, source.means, source.problem) == ("spin it", "lean and push it", "")
    source.say("push it")
    assert (says[3] == np.eye(TOLD_DIM)[0]).all()
    assert (source.text, source.means) == ("push it", "push it")
    for _ in range(2):  # it may be said again
        source.say("drop it")
        assert source.problem == "'drop it' is being encoded"
        done.get(timeout=120.0)()
        assert says[-1] is None
        assert source.problem == "instruction: 'drop it' cannot be encoded: RuntimeError: no memory"
    for callback in hear:  # both subscriptions hear a latched publisher, the second one late
        callback(String(data="Drop it."))
        if callback is hear[0]:
            done.get(timeout=120.0)()
        assert source.problem.startswith("policy/instruction: 'drop it' cannot be encoded")
    source.say("push it")
    source.say("Stop!")
    assert (says[-1], source.text) == (None, "")
    assert source.problem.startswith("no instruction: ")


def test_the_robot_changes_its_task_with_the_next_episode(start_node, client):
    bridge = {"task": TINY_TASKS[0], "mode": "lockstep", "width_px": 64, "height_px": 64, "autostart": True}
    client.watched.append(start_node("dp_ros.ros.nodes.metaworld_bridge", bridge))
    tasks = client.node.create_subscription(
        String, "episode/task", lambda msg: heard.append(msg.data), LATCHED
    )
    heard: list[str] = []
    client.wait_until_active("metaworld_bridge")
    client.wait_for(lambda: heard == [TINY_TASKS[0]], "the first task")
    assert set_parameter(client, "metaworld_bridge", "task", "tiny-pusch").startswith(
        "unknown task 'tiny-pusch'"
    )
    assert "another bridge" in set_parameter(client, "metaworld_bridge", "task", "reach-v3")
    assert set_parameter(client, "metaworld_bridge", "task", TINY_TASKS[1]) == ""
    assert heard == [TINY_TASKS[0]]
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    client.wait_for(lambda: heard == list(TINY_TASKS), "the next task")
    client.node.destroy_subscription(tasks)


@pytest.mark.parametrize(
    ("kind", "sentence", "reason"),
    [
        ("wrong", "lean and push it", "time limit"),
        ("held_out", "sing", "instruction not understood"),
    ],
)
def test_episodes_over_topics_are_told_the_same_as_in_process(told, ros_domain, kind, sentence, reason):
    options = {"max_steps": 6, "runtime": RuntimeConfig(mode="lockstep", threads=1, engine="torch")}
    here = evaluate_in_process(told, TINY_TASKS[0], [3, 4], instructions=kind, **options)
    there = evaluate(
        told,
        TINY_TASKS[0],
        [3, 4],
        on_episode=lambda result: None,
        domain_id=ros_domain,
        instructions=kind,
        **options,
    )
    assert [(result.instruction, result.reason) for result in here.results] == [(sentence, reason)] * 2
    assert here.results == there.results


def test_a_film_shows_what_the_policy_is_told_in_the_middle_of_an_episode(told, ros_domain):
    films = []
    report = evaluate(
        told,
        TINY_TASKS[1],
        [3],
        max_steps=30,  # a busy session sees the first pictures late
        runtime=RuntimeConfig(mode="lockstep", threads=1, engine="torch"),
        on_episode=lambda result: None,
        on_video=lambda result, pictures: films.append(pictures),
        domain_id=ros_domain,
        instruction="push it",
        then=Change("lean and push it", 3),
    )
    assert [result.instruction for result in report.results] == ["push it; then lean and push it"]
    (film,) = films
    blank = np.zeros_like(film[0][:, : film[0].shape[0]])
    captions = [with_policy_view(blank, [], sentence)[-40:] for sentence in ("push it", "lean and push it")]
    shown = [
        [np.array_equal(picture[-40:, : blank.shape[1]], caption) for caption in captions] for picture in film
    ]
    assert shown[0] == [True, False]
    assert shown[-1] == [False, True]
