"""Demonstrations of the scripted expert over topics, with bridge and recorder as processes: one bag per episode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.data.bags.reader import BagError, BagReader, find_bags
from dp_ros.data.bags.repair import repair
from dp_ros.data.bags.writer import Compression
from dp_ros.ros.node import qos
from dp_ros.ros.processes.node_process import START_TIMEOUT_S, NodeGroup, SessionError, parameters_yaml
from dp_ros.schema import BridgeConfig, CollectConfig, RecorderConfig

_EPISODE_TIMEOUT_S = 120.0
_HOPELESS = 20  # seeds tried in a row without one success


class CollectSession(NodeGroup):
    """The simulated robot, commanded by its expert, and a recorder, as processes."""

    def __init__(self, bridge: BridgeConfig, recorder: RecorderConfig, domain_id: int | None = None) -> None:
        self._statuses: list[dict[str, Any]] = []
        nodes = {
            "metaworld_bridge": parameters_yaml("/**/metaworld_bridge", bridge, autostart=True),
            "recorder_node": parameters_yaml("/**/recorder_node", recorder, autostart=True),
        }
        super().__init__(nodes, domain_id, client="dp_ros_collect")

    def create_interface(self) -> None:
        self.node.create_subscription(
            String, "record/status", lambda msg: self._statuses.append(json.loads(msg.data)), qos.LATCHED
        )
        self._start = self.node.create_client(Trigger, "record/start")
        self._reset = self.node.create_client(Trigger, "episode/reset")

    def record_episode(self) -> dict[str, Any]:
        """Record the bridge's next episode; returns the recorder's report of its end. SessionError."""
        self.refuse_others(("ee_pose", "command/ee_pose"))
        self._ask_until(self._start, lambda: self._newest("recording") is not None)
        bag = self._newest("recording")
        self._ask_until(self._reset, lambda: False)
        self.spin_until(
            lambda: self._newest("idle", bag) is not None, _EPISODE_TIMEOUT_S, f"{bag} was not ended"
        )
        status = next(s for s in reversed(self._statuses) if s.get("bag") == bag)
        if status["problem"] or status["dropped"] or status["lost"]:
            raise SessionError(f"{bag}: {status['problem'] or 'messages were dropped, the disk is too slow'}")
        self._statuses.clear()
        return status

    def _newest(self, state: str, bag: str | None = None) -> str | None:
        """The bag of the newest status, where the status has that state (and bag)."""
        if not self._statuses or self._statuses[-1]["state"] != state:
            return None
        found = self._statuses[-1].get("bag")
        return found if bag is None or bag == found else None

    def _ask_until(self, client: Any, seen: Callable[[], bool]) -> None:
        """Call until the answer is a success, or `seen()`: the nodes of a new graph may not be connected yet."""
        answer, why = client.call_async(Trigger.Request()), "no answer"

        def done() -> bool:
            nonlocal answer, why
            if not answer.done():
                return seen()
            if answer.result().success:
                return True
            why, answer = answer.result().message, client.call_async(Trigger.Request())
            return seen()

        try:
            self.spin_until(done, START_TIMEOUT_S, f"{client.srv_name}")
        except SessionError as error:
            raise SessionError(f"{error}: {why}") from None


def collect_bags(
    config: CollectConfig,
    folder: str | Path,
    *,
    compression: Compression = "none",
    domain_id: int | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Fill `folder` with bags until `config.episodes` hold a success; the same call resumes a killed run.

    The bags, converted, give the dataset of `dp_ros.train.collect.collect`. `on_episode(kept, tried)` is called after
    each seed. Returns (kept, tried). Raises SessionError, BagError.
    """
    folder = Path(folder)
    settings = json.dumps(config.model_dump(mode="json", exclude={"episodes"}), sort_keys=True)
    kept, tried = _resume(folder, settings)
    if kept >= config.episodes:
        return kept, tried
    turn = tried % len(config.noise)
    bridge = BridgeConfig(
        task=config.task,
        cameras=config.cameras,
        width_px=config.width_px,
        height_px=config.height_px,
        markers=config.markers,
        mode="lockstep",
        expert=True,
        noise=config.noise[turn:] + config.noise[:turn],
        first_seed=config.first_seed + tried,
        max_steps=config.max_steps,
        keep_steps=config.keep_steps,
        min_readers=1,
    )
    recorder = RecorderConfig(
        folder=str(folder.absolute()),
        cameras=config.cameras,
        compression=compression,
        stop_with_episode=True,
        operator="scripted expert",
        mode="lockstep",
        collect=settings,
    )
    failures = 0
    with CollectSession(bridge, recorder, domain_id) as session:
        while kept < config.episodes:
            success = session.record_episode()["outcome"] == "success"
            tried += 1
            kept += success
            failures = 0 if success else failures + 1
            if on_episode:
                on_episode(kept, tried)
            if failures >= _HOPELESS:
                raise SessionError(
                    f"{folder}: the expert of {config.task} failed {failures} times in a row: "
                    f"lower noise {list(config.noise)} or raise max_steps {config.max_steps}"
                )
    return kept, tried


def _resume(folder: Path, settings: str) -> tuple[int, int]:
    """(kept, tried) of the bags in `folder`; SessionError where they were made with other settings."""
    if not folder.exists() or not any(folder.iterdir()):
        return 0, 0
    outcomes = []
    for path in find_bags([folder]):
        if not (path / "metadata.yaml").is_file():
            try:
                repair(path)
            except BagError:  # killed before anything reached the disk
                continue
        with BagReader(path) as bag:
            if bag.info.custom.get("collect") != settings:
                raise SessionError(
                    f"{path}: was not recorded with these settings: give the same to resume, or another --out"
                )
            outcomes.append(bag.info.outcome)
    # A bag that was cut off does not count: its seed is tried again.
    return outcomes.count("success"), outcomes.count("success") + outcomes.count("failure")
