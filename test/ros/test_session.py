"""After any end of a session, its two nodes are gone. Run as a script, this file is the parent process."""

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

import psutil
import pytest

MAX_STEPS = 40
SECONDS_TO_END = 120.0  # a second, but on a busy machine


def run(checkpoint: Path, domain_id: int) -> int:
    """Episodes until something ends them."""
    from dp_ros.policy.checkpoint_config import bridge_for
    from dp_ros.ros.processes.session import Session, SessionError
    from dp_ros.schema import RuntimeConfig

    bridge = bridge_for(checkpoint, mode="lockstep", max_steps=MAX_STEPS, command_timeout_s=20.0)
    runtime = RuntimeConfig(mode="lockstep", threads=1, engine="torch")
    try:
        with Session(checkpoint, bridge, runtime, domain_id) as session:
            print("ready", flush=True)
            for seed in count():
                session.run_episode(seed, timeout_s=60.0)
    except SessionError as error:
        print("error", str(error).replace("\n", "|"), flush=True)
        return 3
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130
    return 0


@pytest.fixture
def session(start_peer, push_checkpoint, ros_domain, ros_environment, tmp_path):
    """session() -> (peer, its nodes): a running session, and the processes it started by their module."""
    ros_environment["TMPDIR"] = str(tmp_path)

    def start(checkpoint: Path = push_checkpoint):
        peer = start_peer(__file__, checkpoint, ros_domain)
        peer.expect("ready")
        nodes = {}
        for process in psutil.Process(peer.process.pid).children(recursive=True):
            (module,) = [word for word in process.cmdline() if word.startswith("dp_ros.ros.")]
            nodes[module.rpartition(".")[2]] = process
        assert set(nodes) == {"metaworld_bridge", "policy_node"}
        return peer, nodes

    return start


def assert_gone(processes) -> None:
    deadline = time.monotonic() + SECONDS_TO_END
    while alive := [process for process in processes if lives(process)]:
        if time.monotonic() > deadline:
            for process in alive:
                process.kill()
            pytest.fail(f"{alive} outlived the session")
        time.sleep(0.02)  # the end of another's child can only be polled


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # its adoptive parent may not reap it
    except psutil.NoSuchProcess:
        return False


@pytest.mark.sim
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_both_nodes(session, times, tmp_path):
    """The second one comes while the session is ending them."""
    peer, nodes = session()
    peer.process.send_signal(signal.SIGINT)
    if times == 2:
        psutil.wait_procs([nodes["policy_node"]], timeout=SECONDS_TO_END)  # the first that is ended
        peer.process.send_signal(signal.SIGINT)
    assert peer.process.wait(SECONDS_TO_END) != 0
    assert_gone(nodes.values())
    if times == 1:
        peer.expect("interrupted")
        assert list(tmp_path.glob("dp_ros-*")) == []


@pytest.mark.sim
@pytest.mark.parametrize("victim", ["metaworld_bridge", "policy_node"])
def test_a_node_that_is_killed_ends_the_session_with_one_line(session, victim, tmp_path):
    peer, nodes = session()
    nodes[victim].send_signal(signal.SIGKILL)
    assert peer.expect("error").startswith(f"{victim} ended with code -9: ")
    assert peer.process.wait(SECONDS_TO_END) == 3
    assert_gone(nodes.values())
    assert list(tmp_path.glob("dp_ros-*")) == []


@pytest.mark.sim
def test_nodes_do_not_outlive_a_parent_that_could_not_end_them(session):
    """SIGTERM ends Python on the spot, as SIGKILL does."""
    peer, nodes = session()
    peer.process.send_signal(signal.SIGTERM)
    assert peer.process.wait(SECONDS_TO_END) == -signal.SIGTERM
    assert_gone(nodes.values())


@pytest.mark.sim
def test_another_robot_in_the_same_domain_is_refused(session, client):
    """Each arm would follow the commands for the other: the stamps of two simulators are the same."""
    from geometry_msgs.msg import PoseStamped

    peer, nodes = session()
    client.node.create_publisher(PoseStamped, "command/ee_pose", 10)
    message = peer.expect("error")
    assert "2 publishers of command/ee_pose" in message
    assert "ROS_DOMAIN_ID" in message
    assert peer.process.wait(SECONDS_TO_END) == 3
    assert_gone(nodes.values())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell of a background job ignores it
    code = run(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(code)
