"""Recorder node: one bag per episode, begun and ended by service or by topic. Messages are not decoded.

The services are `record/start`, `record/success`, `record/failure` and `record/discard` (std_srvs/Trigger); the same
words on the topic `record/command` have the same effect. Each end is reported on `record/status`. A discarded episode
keeps its bag, with that label.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.recording import Recording
from dp_ros.ros.bags.latched import LatchedMessages
from dp_ros.ros.bags.messages import json_object
from dp_ros.ros.bags.recorder_topics import Sources, required_topics, wanted_topics
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.schema import RecorderConfig, TopicsFile

_ENDS = {"success": "success", "failure": "failure", "discard": "discarded"}
_SESSION = "policy/session"
_DISCOVER_S = 0.25
_SETTLED_S = 0.02  # period of the check for the end of an episode
_SAME_CLOCK_NS = 1_000_000_000  # a larger difference means another machine's clock
_SILENT_S = 1.0  # a topic without messages for longer counts as missing
_SLOW_DISK_S = 1.0  # backlog that diagnostics warn of: a power failure would lose it


@dataclass(frozen=True)
class _Ending:
    """End of an episode whose last messages may still be in flight."""

    outcome: str
    end_ns: int  # wall time; messages sent later are not part of the episode
    until_s: float  # steady time at which the bag is closed
    facts: dict[str, str]


class RecorderNode(ManagedNode):
    """Lifecycle node with one `Recording` at a time."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self._config = read_config(self, RecorderConfig)
        self._topics = read_config(self, TopicsFile).read()
        self.names = self._topics.names()
        self._required = required_topics(self._config, self._topics)
        self._recording: Recording | None = None
        self._active = False
        self._sources: Sources | None = None

    # ---- lifecycle -------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._folder = Path(self._config.folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sources = Sources(self, wanted_topics(self._config, self._topics), self._on_message)
        self._latched = LatchedMessages(self.resolve_topic_name)
        self._received_s: dict[str, float] = {}  # topic -> steady time of its last message
        self._problem = ""
        self._note = self._config.note
        self._ending: _Ending | None = None
        for word in ("start", *_ENDS):
            self.add_service(Trigger, f"record/{word}", self._service(word))
        self.add_subscription(String, "record/command", self._on_word, qos.RELIABLE)
        self.add_subscription(String, "record/note", self._on_note, qos.RELIABLE)
        self._status_publisher = self.add_publisher(String, "record/status", qos.LATCHED)
        *sensors, _ = map(self.resolve_topic_name, self._required)
        self.single = tuple(sensors)  # without the gripper's, which may be the joint states of several nodes
        self.add_diagnostics(self._status)
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = True
        self._discover()
        self.add_timer(_DISCOVER_S, self._on_timer)
        self.add_timer(_SETTLED_S, self._end_when_settled)
        self._report("idle")
        return super().on_activate(state)

    def stop(self) -> None:
        if not self._active:
            return
        self._active = False
        if self._recording is not None and self._sources is not None:
            self._sources.drain()
        self._finish("unknown")

    def release(self) -> None:
        if self._sources is not None:
            self._sources.close()
            self._sources = None

    # ---- requests --------------------------------------------------------------------------------------

    def _service(self, word: str) -> Callable[[Any, Any], Any]:
        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success, response.message = self._execute(word)
            return response

        return answer

    def _on_word(self, msg: String, info: Mapping[str, int]) -> None:
        if msg.data != "start" and msg.data not in _ENDS:
            self.get_logger().error(
                f"record/command '{msg.data[:40]}': is none of start, {', '.join(_ENDS)}; it is ignored"
            )
            return
        sent_ns, received_ns = info["source_timestamp"], info["received_timestamp"]
        is_done, why = self._execute(msg.data, _by_our_clock(sent_ns, received_ns))
        if not is_done:
            self.get_logger().error(f"record/command {msg.data}: {why}")

    def _on_note(self, msg: String) -> None:
        self._note = msg.data

    def _execute(self, word: str, sent_ns: int | None = None) -> tuple[bool, str]:
        """Execute one word, sent now or at `sent_ns`; whether it had effect, and the bag or the reason."""
        if not self._active:
            return False, "recorder_node is not active"
        if word == "start":
            return self._start()
        if self._recording is None or self._ending is not None:
            return False, "no episode is being recorded"
        self._end(_ENDS[word], sent_ns or time.time_ns())
        return True, str(self._recording.path)

    def _start(self) -> tuple[bool, str]:
        if self._ending is not None:
            self._finish("unknown")
        if self._recording is not None:
            return False, f"{self._recording.path} is still being recorded: end it first"
        self._discover()
        assert self._sources is not None
        missing = self._sources.missing(self._required)
        if missing:
            return False, f"nobody publishes {', '.join(missing)}: start the robot and its cameras first"
        if silent := self._silent():
            return False, f"nothing arrives on {', '.join(silent)}: its publisher sends nothing yet"
        session = self.resolve_topic_name(
            _SESSION
        )  # latched by each policy's node as soon as it publishes it
        if self.count_publishers(session) and not self._latched.of(session):
            return False, f"{session} has not arrived yet, which a replay needs: try again"
        path = self._folder / f"{self._config.prefix}_{_next_index(self._folder, self._config.prefix):05}"
        try:
            self._recording = Recording(path, self._config, self._facts())
        except BagError as error:
            self._problem = str(error)
            return False, self._problem
        self._problem = ""
        self._sources.lost.clear()
        self._began_steady_ns = time.monotonic_ns()
        for source in self._sources.found.values():
            self._recording.add_topic(source.topic, source.type_name, source.qos)
            for data, sent_ns in self._latched.of(source.topic):
                self._recording.put(source.topic, data, time.time_ns(), sent_ns)
        self.get_logger().info(f"recording {path}")
        self._report("recording", bag=str(path))
        return True, str(path)

    def _silent(self) -> list[str]:
        """Required topics without recent messages, of a robot in real time: connecting takes a moment."""
        if self._config.mode == "lockstep":  # such a robot sends nothing before an episode begins
            return []
        names = map(self.resolve_topic_name, self._required)
        now_s = time.monotonic()
        return [name for name in names if now_s - self._received_s.get(name, -1e9) > _SILENT_S]

    def _end(self, outcome: str, end_ns: int) -> None:
        """End the episode at `end_ns`, with the facts of now; messages sent before may still be in flight."""
        until_s = time.monotonic() + self._config.settle_s
        self._ending = self._ending or _Ending(outcome, end_ns, until_s, self._facts())

    def _end_when_settled(self) -> None:
        if self._ending is not None and time.monotonic() >= self._ending.until_s:
            if self._sources is not None:
                self._sources.drain()  # a busy machine has not come to all that arrived
            self._finish("unknown")

    def _finish(self, outcome: str) -> None:
        """Close the bag with the requested outcome, or with `outcome` where no end was requested."""
        recording, ending = self._recording, self._ending
        self._recording, self._ending = None, None
        if recording is None or self._sources is None:
            return
        outcome, facts = (ending.outcome, ending.facts) if ending else (outcome, self._facts())
        lost = dict(self._sources.lost)
        try:
            recording.close({**facts, "outcome": outcome, "lost": json.dumps(lost)})
            self._problem = recording.problem
        except BagError as error:
            self._problem = str(error)
        if outcome != "discarded" and not self._problem and (missing := self._missing_in(recording)):
            self._problem = f"nothing arrived on {', '.join(missing)}: discard it"
        dropped, written = sum(recording.dropped.values()) + sum(lost.values()), recording.written.total()
        text = f"{recording.path}: {outcome}, {written} messages"
        if dropped or self._problem:
            self.get_logger().error(
                f"{text}, {dropped} lost; {self._problem or 'this machine or its disk is too slow'}"
            )
        else:
            self.get_logger().info(text)
        self._note = self._config.note
        self._report(
            "idle",
            bag=str(recording.path),
            outcome=outcome,
            messages=written,
            dropped=dict(recording.dropped),
            lost=lost,
            problem=self._problem,
        )

    def _missing_in(self, recording: Recording) -> list[str]:
        """Required topics of which the bag holds no message: a starved process may have received none."""
        arrived = recording.written.keys() | recording.dropped.keys()
        return [name for name in map(self.resolve_topic_name, self._required) if name not in arrived]

    def _facts(self) -> dict[str, str]:
        """Metadata of the bag."""
        config = self._config
        facts = {"task": config.task, **self._latched.facts, "operator": config.operator, "note": self._note}
        facts |= {"mode": config.mode, "collect": config.collect}
        return {key: value for key, value in facts.items() if value}

    # ---- messages --------------------------------------------------------------------------------------

    def _on_message(self, topic: str, data: bytes, received_ns: int, sent_ns: int) -> None:
        self._received_s[topic] = time.monotonic()
        if self._sources is not None and self._sources.found[topic].is_latched:
            self._latched.keep(topic, data, sent_ns)
            if self._recording is not None:  # sent before the episode, and valid in it
                received_ns = max(received_ns, self._begin_ns())
        if self._recording is None or not self._belongs(received_ns, sent_ns):
            return
        self._recording.put(topic, data, received_ns, sent_ns)
        if self._config.stop_with_episode and topic == self.resolve_topic_name("episode/result"):
            result = json_object(deserialize_message(data, String).data)
            if isinstance(result.get("success"), bool):
                self._end("success" if result["success"] else "failure", _by_our_clock(sent_ns, received_ns))

    def _belongs(self, received_ns: int, sent_ns: int) -> bool:
        """Whether a message is part of the episode, not of the time before or after it."""
        sent_ns = _by_our_clock(sent_ns, received_ns)
        return received_ns >= self._begin_ns() and (self._ending is None or sent_ns <= self._ending.end_ns)

    def _begin_ns(self) -> int:
        """The begin of the episode on the wall clock of now, which may have been set meanwhile."""
        return time.time_ns() - (time.monotonic_ns() - self._began_steady_ns)

    def _discover(self) -> None:
        assert self._sources is not None
        for source in self._sources.discover():
            if self._recording is not None:
                self._recording.add_topic(source.topic, source.type_name, source.qos)

    def _on_timer(self) -> None:
        self._discover()
        if self._recording is not None and self._recording.problem:
            self._finish("unknown")

    # ---- status ----------------------------------------------------------------------------------------

    def _report(self, state: str, **facts: Any) -> None:
        self._status_publisher.publish(String(data=json.dumps({"state": state, **facts})))

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        recording, sources = self._recording, self._sources
        values = {
            "bag": str(recording.path) if recording else "",
            "messages": str(recording.written.total() if recording else 0),
            "dropped": str(sum(recording.dropped.values()) if recording else 0),
            "lost": str(sum(sources.lost.values()) if sources else 0),
            "backlog_s": f"{recording.backlog_s if recording else 0.0:.2f}",
        }
        if self._problem:
            return ERROR, self._problem, values
        if sources and sources.refused:
            return ERROR, "; ".join(f"{topic}: {why}" for topic, why in sources.refused.items()), values
        if recording and (recording.dropped or sum(sources.lost.values() if sources else ())):
            return ERROR, f"messages are lost: {dict(recording.dropped)} dropped", values
        if recording and recording.backlog_s > _SLOW_DISK_S:
            return WARN, f"the disk is too slow: messages wait {recording.backlog_s:.1f} s for it", values
        missing = sources.missing(self._required) if sources and self._active else []
        if missing:
            return WARN, f"nobody publishes {', '.join(missing)}", values
        return OK, "recording" if recording else "idle", values


def _by_our_clock(sent_ns: int, received_ns: int) -> int:
    """Time at which a message was sent, on our clock: that of its receipt where the sender's clock is another."""
    return sent_ns if abs(received_ns - sent_ns) < _SAME_CLOCK_NS else received_ns


def _next_index(folder: Path, prefix: str) -> int:
    """One more than the highest number in use; gaps of deleted bags stay."""
    pattern = re.compile(rf"{re.escape(prefix)}_(\d+)")
    used = [int(match[1]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    return max(used, default=-1) + 1


def main() -> None:
    run_process(RecorderNode)


if __name__ == "__main__":
    main()
