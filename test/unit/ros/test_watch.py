"""State and page of the live view: what a browser is told, and that nothing queues for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dp_ros.ros.messages.plan_picture import View
from dp_ros.ros.watch.page import PageServer, page
from dp_ros.ros.watch.state import Chunk, WatchState

POSE_NS = 1_000_000_000


@pytest.fixture
def state(clock: Any) -> WatchState:
    return WatchState(clock)


@pytest.fixture
def server(state: WatchState) -> Iterator[PageServer]:
    server = PageServer(state, 0)
    yield server
    server.close()


def picture(value: int) -> View:
    return View("wrist", np.full((48, 64, 3), value, np.uint8))


def test_nothing_heard_is_told_as_nothing(state: WatchState) -> None:
    told = state.as_dict()
    assert (told["held_share"], told["plan_ms"], told["ticks_per_s"]) == (None, None, None)
    assert told["cameras"] == told["chunk_m"] == told["measured_m"] == []


def test_the_held_share_is_of_the_last_ten_seconds(state: WatchState, clock: Any) -> None:
    for _ in range(10):
        state.add_verdict("hold_no_plan")
    assert state.as_dict()["held_share"] == 1
    clock.now_s += 9
    for verdict in ("pass", "limited_speed", "hold_stale"):
        state.add_verdict(verdict)
    assert state.as_dict()["held_share"] == pytest.approx(11 / 13)
    clock.now_s += 2
    assert state.as_dict()["held_share"] == pytest.approx(1 / 3)
    assert state.as_dict()["verdict"] == "hold_stale"


def test_a_jump_in_time_begins_new_paths(state: WatchState) -> None:
    for i in range(5):
        state.add_pose(POSE_NS + i, np.array([0.01 * i, 0, 0]))
        state.add_command(POSE_NS + i, np.array([0.01 * i, 0, 0.1]))
    state.add_chunk(Chunk(np.zeros((8, 3)), tuple(range(8)), "base"))
    assert len(state.as_dict()["measured_m"]) == 5
    assert state.as_dict()["chunk_m"]
    state.add_pose(0, np.array([1.0, 0, 0]))
    told = state.as_dict()
    assert (told["measured_m"], told["commanded_m"], told["chunk_m"]) == ([[1.0, 0, 0]], [], [])


def test_the_sent_part_of_a_chunk_is_up_to_the_newest_command(state: WatchState) -> None:
    state.add_chunk(Chunk(np.zeros((8, 3)), tuple(range(0, 800, 100)), "base"))
    state.add_command(300, np.zeros(3))
    assert state.as_dict()["chunk_sent"] == 4


def test_what_is_not_finite_is_left_out_because_json_has_no_word_for_it(state: WatchState) -> None:
    state.add_pose(POSE_NS, np.full(3, np.nan))
    state.add_chunk(Chunk(np.array([[0, 0, 0], [np.inf, 0, 0]]), (0, 1), "base"))
    assert json.loads(json.dumps(state.as_dict(), allow_nan=False))["chunk_m"] == [[0, 0, 0]]


def test_only_the_newest_picture_is_kept_and_it_is_encoded_once(state: WatchState) -> None:
    assert state.jpeg("wrist") is None
    for value in range(200):
        state.add_picture(picture(value))
    data = state.jpeg("wrist")
    assert data is not None
    assert state.jpeg("wrist") is data
    assert state.as_dict()["cameras"] == [{"name": "wrist", "number": 200, "age_s": 0.0}]
    assert abs(int(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()) - 199) <= 2


def ask(
    server: PageServer, path: str, method: str = "GET", host: str = ""
) -> tuple[int, dict[str, str], bytes]:
    _, _, port = server.address.rpartition(":")
    connection = HTTPConnection("127.0.0.1", int(port), timeout=120)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    result = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return result


def test_a_browser_gets_page_state_and_pictures(server: PageServer, state: WatchState) -> None:
    state.add_picture(View("left arm", np.zeros((48, 64, 3), np.uint8)))
    status, headers, body = ask(server, "/")
    assert (status, body.decode()) == (200, page())
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not server.is_watched()
    assert json.loads(ask(server, "/state")[2])["cameras"][0]["name"] == "left arm"
    assert server.is_watched()
    assert ask(server, "/camera/left%20arm?7")[2].startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/camera/none", "GET", "", 404),
        ("/../setup.py", "GET", "", 404),
        ("/state", "GET", "example.org", 403),
        ("/state", "GET", "example.org:80", 403),
        ("/state", "POST", "", 501),
        ("/state", "GET", "localhost:80", 200),
    ],
)
def test_everything_else_is_refused(
    server: PageServer, path: str, method: str, host: str, status: int
) -> None:
    """A page of another site that resolves to this machine has its own name in Host."""
    assert ask(server, path, method, host)[0] == status


def test_the_page_is_on_the_loopback_address_and_a_taken_port_gives_another(
    server: PageServer, state: WatchState
) -> None:
    _, _, port = server.address.rpartition(":")
    second = PageServer(state, int(port))
    assert server.address.startswith("http://127.0.0.1:")
    assert second.address.startswith("http://127.0.0.1:")
    assert second.address != server.address
    second.close()
    listening = Path("/proc/net/tcp").read_text().lower()
    assert f"0100007f:{int(port):04x} 00000000:0000 0a" in listening
