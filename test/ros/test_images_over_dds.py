"""Images cross real DDS between real processes, unchanged; run as a script, this file is those processes."""

import hashlib
import json
import sys
import time

import numpy as np
import pytest

from dp_ros.ros.conversions import image_to_rgb, rgb_to_image, stamp_to_ns

RATE_HZ = 30.0
START_NS = 1_700_000_000_999_999_999  # the digits that a float would lose


def frame(i: int, height: int, width: int) -> np.ndarray:
    """Image i, uint8 (H, W, 3): noise, so that no two rows or images are alike."""
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)


def digest(rgb: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rgb)).hexdigest()


def publish(count: int, height: int, width: int, repeat: bool) -> None:
    """Publish images 0 to count - 1 once at 30 Hz when told to, or again and again until killed."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
    frames = [frame(i, height, width) for i in range(count)]
    while publisher.get_subscription_count() == 0:
        rclpy.spin_once(node, timeout_sec=0.05)
    print("matched")
    sys.stdin.readline()
    due_s = time.monotonic()
    while True:
        for i, rgb in enumerate(frames):
            publisher.publish(rgb_to_image(rgb, START_NS + i, "camera_optical"))
            due_s += 1.0 / RATE_HZ
            time.sleep(max(0.0, due_s - time.monotonic()))  # the camera's clock
        if not repeat:
            break
    print("sent")
    sys.stdin.readline()


def receive(count: int, deadline_s: float) -> None:
    """Collect `count` different images, or what came before the deadline, and print their digests."""
    import rclpy
    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    received = {}

    def keep(msg: Image) -> None:
        received[stamp_to_ns(msg.header.stamp)] = (msg.header.frame_id, digest(image_to_rgb(msg)))

    rclpy.init()
    node = rclpy.create_node("viewer")
    matched = SubscriptionEventCallbacks(matched=lambda _: print("matched"))
    node.create_subscription(Image, "image_raw", keep, qos_profile_sensor_data, event_callbacks=matched)
    end_s = time.monotonic() + deadline_s
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
    viewer = start_peer(__file__, "receive", n, 10.0)
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
        end_s = time.monotonic() + 10.0
        while len(received) < n and time.monotonic() < end_s:
            if (msg := subscription.read(timeout=0.1)) is not None:
                stamp_ns = stamp_to_ns(msg.header.stamp)
                received[stamp_ns] = (msg.header.frame_id, digest(image_to_rgb(msg)))
    assert len(received) == n
    check_same(received, n, height, width)


def test_our_transports_deliver_vga_best_effort_at_30_hz(start_peer):
    """Fast DDS's own defaults lose most of these 60 images: one is larger than its shared-memory segment."""
    n, height, width = 60, 480, 640
    viewer = start_peer(__file__, "receive", n, 8.0)
    camera = start_peer(__file__, "publish", n, height, width, "once")
    camera.expect("matched")
    viewer.expect("matched")
    camera.tell("go")
    received = json.loads(viewer.expect("received"))
    assert len(received) >= 0.95 * n
    check_same(received, n, height, width)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "publish":
        publish(*map(int, arguments[:3]), repeat=arguments[3] == "repeat")
    else:
        receive(int(arguments[0]), float(arguments[1]))
