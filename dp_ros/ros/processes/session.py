"""Episodes over real topics, with the bridge and the policy node as processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from dp_ros.evaluation.episode import video_fps
from dp_ros.evaluation.results import EpisodeResult, Report, held_ticks
from dp_ros.evaluation.told import Change, InstructionKind, embedding_of, instruction_for, with_sentence
from dp_ros.evaluation.video_frames import Picture, with_policy_view
from dp_ros.policy.checkpoint_config import bridge_for, check_weights, instructions_of, serving_beside
from dp_ros.policy.instructions import Instructions
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.node import qos
from dp_ros.ros.processes.node_process import START_TIMEOUT_S, NodeGroup, SessionError, parameters_yaml
from dp_ros.schema import BridgeConfig, RuntimeConfig, plain

SPECTATOR = "spectator"
_LAST_PLAN_S = 0.3  # wait for the duration of the last plan, which may arrive after the result of the episode


class Session(NodeGroup):
    """Bridge and policy node as processes, and a client node in this process that runs episodes."""

    def __init__(
        self, checkpoint: Path, bridge: BridgeConfig, runtime: RuntimeConfig, domain_id: int | None = None
    ) -> None:
        self.plans_s: list[float] = []
        self._pictures: dict[int, dict[str, Picture]] = {}  # stamp -> camera -> picture
        self._task = bridge.task
        self._results: list[EpisodeResult] = []
        self._realtime = bridge.mode == "realtime"
        self._verdicts: list[str] = []  # of the episode that runs
        self._told = ""  # the sentence that the policy follows, by its diagnostics
        self._sentences: list[tuple[int, str]] = []  # of the episode that runs, each with its first stamp
        self._cameras = (SPECTATOR, *bridge.cameras) if bridge.spectator else ()
        nodes = {
            "metaworld_bridge": parameters_yaml("/**/metaworld_bridge", bridge, autostart=True),
            "policy_node": parameters_yaml(
                "/**/policy_node",
                runtime,
                autostart=True,
                checkpoint=str(checkpoint.resolve()),
                use_sim_time=self._realtime,
            ),
        }
        super().__init__(nodes, domain_id)

    def create_interface(self) -> None:
        node = self.node
        node.create_subscription(String, "episode/result", self._on_result, qos.RELIABLE_DEEP)
        node.create_subscription(
            Float64, "policy/plan_duration", lambda msg: self.plans_s.append(msg.data), qos.RELIABLE_DEEP
        )
        if self._realtime:
            node.create_subscription(
                String, "policy/verdict", lambda msg: self._verdicts.append(msg.data), qos.RELIABLE_DEEP
            )
        pictures_qos = qos.observations("realtime") if self._realtime else qos.RELIABLE_DEEP
        for camera in self._cameras:
            node.create_subscription(
                Image, f"camera/{camera}/image_raw", self._picture_callback(camera), pictures_qos
            )
        self._reset = node.create_client(Trigger, "episode/reset")
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.RELIABLE_DEEP)
        self._parameters = AsyncParameterClient(node, "policy_node")
        self._say = node.create_publisher(String, "policy/instruction", qos.LATCHED)

    def wait_until_active(self) -> None:
        super().wait_until_active()
        self.spin_until(self._reset.service_is_ready, START_TIMEOUT_S, "episode/reset is not offered")

    def instruct(self, sentence: str, known: Instructions) -> bool:
        """Tell the policy what to do; whether it understands. If not, it is told nothing. In real time, wait until it
        follows a sentence that it must encode. SessionError where it refuses.
        """
        is_understood = embedding_of(known, sentence) is not None
        if not is_understood:
            sentence = ""
        self.spin_until(self._parameters.services_are_ready, START_TIMEOUT_S, "policy_node has no parameters")
        self._told = ""
        answer = self._parameters.set_parameters([Parameter("instruction", value=sentence)])
        self.spin_until(answer.done, START_TIMEOUT_S, "policy_node did not take the instruction")
        (result,) = answer.result().results
        if not result.successful:
            raise SessionError(f"policy_node refused the instruction: {result.reason}")
        if sentence and self._realtime and not known.knows(text := plain(sentence)):
            self.spin_until(
                lambda: self._told == text, START_TIMEOUT_S, f"policy_node did not encode '{text}'"
            )
        return is_understood

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self._told = next((pair.value for pair in status.values if pair.key == "instruction"), self._told)

    def _picture_callback(self, camera: str) -> Callable[[Image], None]:
        def store(msg: Image) -> None:
            stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
            self._pictures.setdefault(stamp_ns, {})[camera] = images.image_to_rgb(msg)

        return store

    def film(self) -> list[Picture]:
        """Pictures of the last episode in order: the spectator's beside what the policy saw."""
        if self._realtime:
            return self._film_by_time()
        return [
            self._view(stamp_ns, seen)
            for stamp_ns, seen in sorted(self._pictures.items())
            if len(seen) == len(self._cameras)
        ]

    def _view(self, stamp_ns: int, seen: Mapping[str, Picture]) -> Picture:
        arm = [picture for camera, picture in sorted(seen.items()) if camera != SPECTATOR]
        told = [sentence for since_ns, sentence in self._sentences if since_ns <= stamp_ns]
        return with_policy_view(seen[SPECTATOR], arm, told[-1] if told else "")

    def _film_by_time(self) -> list[Picture]:
        """The same where each camera has a rate of its own: the newest pictures at every time."""
        stamps = sorted(self._pictures)
        newest: dict[str, Picture] = {}
        pictures = []
        due_ns, period_ns = 0, round(1e9 / video_fps(self._task))
        for stamp_ns in stamps:
            newest |= self._pictures[stamp_ns]
            if len(newest) == len(self._cameras) and stamp_ns >= due_ns:
                pictures.append(self._view(stamp_ns, newest))
                due_ns = max(due_ns, stamp_ns - period_ns) + period_ns
        return pictures

    def _on_result(self, msg: String) -> None:
        result = EpisodeResult(**json.loads(msg.data))
        if self._realtime:
            result = replace(result, **held_ticks(self._verdicts))
        self._results.append(result)

    def run_episode(
        self, seed: int, timeout_s: float, told: str = "", then: Change | None = None
    ) -> EpisodeResult:
        """Begin the bridge's next episode, which must be that of `seed`, and wait for its result. SessionError.

        told: the sentence that the policy follows, for the film. then: what it is told in the middle of a film.
        """
        self.refuse_others(("command/ee_pose", "ee_pose"))
        self._pictures.clear()
        self._verdicts.clear()
        self._sentences = [(0, told)]
        count = len(self._results)
        answer = self._reset.call_async(Trigger.Request())

        def has_ended() -> bool:
            if then is not None and len(self._sentences) == 1 and len(self._pictures) > then.after_ticks:
                self._say.publish(String(data=then.sentence))
                self._sentences.append((max(self._pictures), then.sentence))
            # The response may be lost on a busy machine. The result is enough.
            return len(self._results) > count or (answer.done() and not answer.result().success)

        self.spin_until(has_ended, timeout_s, f"episode {seed} gave no result")
        if len(self._results) == count:
            raise SessionError(f"episode/reset was refused: {answer.result().message}")
        result = self._results[-1]
        if result.seed != seed:
            raise SessionError(
                f"the bridge ran seed {result.seed} where {seed} was meant: is another session running?"
            )
        return result


def evaluate(
    checkpoint: Path,
    task: str,
    seeds: Sequence[int],
    *,
    max_steps: int,
    runtime: RuntimeConfig,
    on_episode: Callable[[EpisodeResult], None],
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None = None,
    spectator: str = "auto",
    domain_id: int | None = None,
    weights_sha256: str = "",
    mode: Literal["lockstep", "realtime"] = "lockstep",
    instruction: str = "",
    instructions: InstructionKind = "known",
    then: Change | None = None,
) -> Report:
    """Episodes over DDS, one per seed (consecutive numbers). In lockstep, the same outcomes as in-process; in real
    time, the simulated clock waits for nobody.

    `on_video` gets each episode's pictures, `video_fps` of them a second: uint8 (480, 720, 3), the camera `spectator`
    (auto: the simulator's own) beside what the policy sees. Raises SessionError, and CheckpointError where the node
    has loaded other weights than `weights_sha256`. instruction, instructions: `instruction_for`. then: what each
    episode is told in its middle, which needs `on_video`.
    """
    bridge = bridge_for(
        checkpoint,
        task=task,
        mode=mode,
        first_seed=seeds[0],
        max_steps=max_steps,
        spectator=spectator if on_video else "",
        command_timeout_s=20.0,
    )
    if list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        raise SessionError("seeds must be consecutive: the bridge counts them up")
    report = Report(task, str(checkpoint), "ros", runtime.policy_seed)
    runtime = runtime.model_copy(update=serving_beside(bridge))
    with Session(checkpoint, bridge, runtime, domain_id) as session:
        if weights_sha256:
            check_weights(checkpoint, weights_sha256)  # after the node has loaded them
        known = instructions_of(checkpoint)
        for seed in seeds:
            sentence = instruction_for(known, bridge.task, seed, instruction, instructions)
            is_understood = session.instruct(sentence, known) if known and sentence else True
            result = session.run_episode(seed, max_steps * bridge.command_timeout_s, sentence, then)
            said = f"{sentence}; then {then.sentence}" if then else sentence
            result = with_sentence(result, said, is_understood=is_understood)
            report.results.append(result)
            on_episode(result)
            if on_video:
                on_video(result, session.film())
        session.spin_until(lambda: False, _LAST_PLAN_S, "")
        report.plan_s = list(session.plans_s)
    return report
