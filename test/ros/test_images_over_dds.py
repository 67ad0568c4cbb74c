"""Images cross real DDS between real processes, unchanged; run as a script, this file is those processes.

And the environment that such processes start in.
"""

import hashlib
import itertools
import json
import os
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from dp_ros.resources import share_file
from dp_ros.ros.messages.conversions import stamp_to_ns
from dp_ros.ros.messages.images import image_to_rgb, rgb_to_image
from dp_ros.ros.processes.environment import RosMissingError, node_environment, require_ros
from dp_ros.schema import ConfigError

RATE_HZ = 30.0
START_NS = 1_700_000_000_999_999_999  # the digits that a float would lose


def frame(i: int, height: int, width: int) -> np.ndarray:
    """Image i, uint8 (H, W, 3): noise, so that no two rows or images are alike."""
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)


def digest(rgb: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rgb)).hexdigest()


@contextmanager
def ros_node(name: str):
    import rclpy

    rclpy.init()
    node = rclpy.create_node(name)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()


def orders() -> tuple[threading.Event, threading.Event]:
    """(go, end): the first line of standard input, and its end."""
    go, end = threading.Event(), threading.Event()

    def read() -> None:
        for _ in sys.stdin:
            go.set()
        end.set()
        go.set()

    threading.Thread(target=read, daemon=True).start()
    return go, end


def publish(count: int, height: int, width: int, repeat: bool) -> None:
    """Publish images 0 to count - 1 at 30 Hz when told to: once, or again and again until told to end."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    frames = [frame(i, height, width) for i in range(count)]
    go, end = orders()
    with ros_node("camera") as node:
        publisher = node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        while publisher.get_subscription_count() == 0 and not end.wait(0.01):
            pass
        print("matched")
        go.wait()
        for i in itertools.cycle(range(count)) if repeat else range(count):
            publisher.publish(rgb_to_image(frames[i], START_NS + i, "camera_optical"))
            if end.wait(1.0 / RATE_HZ):  # never faster, also where a busy machine was late
                break
        end.wait()


def receive(count: int, deadline_s: float) -> None:
    """Collect `count` different images, or what came before the deadline, and print their digests."""
    import rclpy
    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    received = {}
    # Deep: on a busy machine this process may be late to take what has arrived.
    profile = QoSProfile(depth=count, reliability=ReliabilityPolicy.BEST_EFFORT)

    def keep(msg: Image) -> None:
        received[stamp_to_ns(msg.header.stamp)] = (msg.header.frame_id, digest(image_to_rgb(msg)))

    matched = SubscriptionEventCallbacks(matched=lambda _: print("matched"))
    end_s = time.monotonic() + deadline_s
    with ros_node("viewer") as node:
        node.create_subscription(Image, "image_raw", keep, profile, event_callbacks=matched)
        while len(received) < count and time.monotonic() < end_s:
            rclpy.spin_once(node, timeout_sec=0.05)
    print("received", json.dumps(received))


def check_same(received: dict, n: int, height: int, width: int) -> None:
    sent = {START_NS + i: digest(frame(i, height, width)) for i in range(n)}
    for stamp_ns, (frame_id, found) in received.items():
        assert frame_id == "camera_optical"
        assert found == sent[int(stamp_ns)], f"image {stamp_ns} changed on its way"


def test_an_rclpy_subscriber_receives_the_bytes_that_were_published(start_peer):
    n, height, width = 3, 97, 131  # odd sizes: nothing is aligned by luck
    camera = start_peer(__file__, "publish", n, height, width, "repeat")
    viewer = start_peer(__file__, "receive", n, 60.0)
    camera.expect("matched")
    camera.tell("go")
    received = json.loads(viewer.expect("received"))
    assert len(received) == n
    check_same(received, n, height, width)


def test_a_peer_without_ros_receives_the_bytes_that_were_published(start_peer, ros_domain):
    """rosless speaks DDS itself and hands over plain bytes; `image_to_rgb` takes its messages as they are."""
    rosless = pytest.importorskip("rosless")
    n, height, width = 3, 224, 224
    camera = start_peer(__file__, "publish", n, height, width, "repeat")
    received = {}
    with rosless.Node(domain=ros_domain).subscribe("/image_raw", "sensor_msgs/msg/Image") as subscription:
        camera.expect("matched")
        camera.tell("go")
        end_s = time.monotonic() + 60.0
        while len(received) < n and time.monotonic() < end_s:
            if (msg := subscription.read(timeout=0.1)) is not None:
                stamp_ns = stamp_to_ns(msg.header.stamp)
                received[stamp_ns] = (msg.header.frame_id, digest(image_to_rgb(msg)))
    assert len(received) == n
    check_same(received, n, height, width)


def test_our_transports_deliver_vga_best_effort_at_30_hz(start_peer):
    """Fast DDS's own defaults lose most of these 60 images: one is larger than its shared-memory segment."""
    n, height, width = 60, 480, 640
    viewer = start_peer(__file__, "receive", n, 60.0)
    camera = start_peer(__file__, "publish", n, height, width, "once")
    camera.expect("matched")
    viewer.expect("matched")
    camera.tell("go")
    received = json.loads(viewer.expect("received"))
    assert len(received) >= 0.95 * n
    check_same(received, n, height, width)


def test_nodes_start_on_this_machine_alone_with_our_transports():
    base = {"HOME": "/home/robot", "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    environment = node_environment(7, base)
    assert base == {"HOME": "/home/robot", "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    assert environment["ROS_DOMAIN_ID"] == "7"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert environment["RMW_IMPLEMENTATION"] == "rmw_cyclonedds_cpp"
    assert environment["FASTDDS_DEFAULT_PROFILES_FILE"] == str(share_file("config/fastdds.xml"))
    assert "ROS_DOMAIN_ID" not in node_environment(base=base)


@pytest.mark.parametrize(
    ("libraries", "names"),
    [
        ((), {"FASTRTPS", "FASTDDS"}),
        (("libfastrtps.so.2.14", "libfastcdr.so.2"), {"FASTRTPS", "FASTDDS"}),
        (("libfastdds.so.3.2", "libfastcdr.so.2"), {"FASTDDS"}),
    ],
    ids=["unknown", "version 2", "version 3"],
)
def test_fast_dds_3_is_not_given_the_variable_that_it_warns_of(libraries, names, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    sourced, workspace = tmp_path / "ros" / "lib", tmp_path / "workspace" / "lib"
    sourced.mkdir(parents=True)
    workspace.mkdir(parents=True)
    for name in libraries:
        (sourced / name).touch()
    base = {"AMENT_PREFIX_PATH": f"{workspace.parent}{os.pathsep}{sourced.parent}"}
    environment = node_environment(base=base)
    assert {name for name in environment if name.endswith("_PROFILES_FILE")} == {
        f"{name}_DEFAULT_PROFILES_FILE" for name in names
    }


@pytest.mark.parametrize(
    "choice",
    [
        {"FASTRTPS_DEFAULT_PROFILES_FILE": "/etc/dds.xml"},
        {"FASTDDS_DEFAULT_PROFILES_FILE": "/etc/dds.xml"},
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
    ],
)
def test_transports_and_range_that_the_user_chose_are_kept(choice):
    base = choice | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_DOMAIN_ID": "3"}
    environment = node_environment(base=base)
    assert {name: environment[name] for name in base} == base
    assert not {name for name in environment if "DDS" in name or "RTPS" in name} - choice.keys()


def test_a_ros_of_wheels_is_added_to_the_ament_prefixes_behind_the_sourced_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "AMENT_PREFIX_PATH" not in node_environment(base={})  # no ROS in this prefix
    (tmp_path / "share" / "ament_index").mkdir(parents=True)
    assert node_environment(base={})["AMENT_PREFIX_PATH"] == str(tmp_path)
    once = node_environment(base={"AMENT_PREFIX_PATH": "/ws/install"})
    assert once["AMENT_PREFIX_PATH"] == f"/ws/install:{tmp_path}"
    assert node_environment(base=once)["AMENT_PREFIX_PATH"] == once["AMENT_PREFIX_PATH"]


@pytest.mark.parametrize("domain_id", [-1, 233])
def test_a_domain_that_does_not_exist_is_refused(domain_id):
    with pytest.raises(ConfigError, match="choose one from 0 to 232"):
        node_environment(domain_id, {})


def test_a_missing_ros_is_one_line_that_says_what_to_do(monkeypatch):
    require_ros()
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(RosMissingError, match=r"source /opt/ros/<distro>/setup.bash or pip install") as error:
        require_ros()
    assert "\n" not in str(error.value)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "publish":
        publish(*map(int, arguments[:3]), repeat=arguments[3] == "repeat")
    else:
        receive(int(arguments[0]), float(arguments[1]))
