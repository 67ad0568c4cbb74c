"""The launch files under the real launch system. It is not on PyPI: these tests run where a ROS 2 is sourced."""

import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

# launch_ros, because `launch` alone can be our own folder of launch files.
pytest.importorskip("launch_ros", reason="launch_ros is not installed: source a ROS 2")

import launch.logging
import rclpy
import torch
import yaml
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription, RegisterEventHandler, Shutdown, TimerAction
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.resources import share_dir
from dp_ros.ros.node import qos
from dp_ros.schema import PolicyConfig
from dp_ros.schema.params_file import matches as names_match

pytestmark = pytest.mark.ros
FILES = ("sim.launch.py", "policy.launch.py", "teleop.launch.py", "record.launch.py")
SERVES = ("sim.launch.py", "policy.launch.py")  # those that need a checkpoint
DEADLINE_S = 180.0  # far beyond what anything here needs; only a failure waits this long
STATS = {
    "action": {"low": [-0.02, -0.02, -0.02, -1.0], "high": [0.02, 0.02, 0.02, 1.0]},
    "state": {"low": [-0.3, 0.4, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
}


@pytest.fixture(scope="module")
def checkpoint(small_policy: Mapping, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of a small policy."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicyConfig.model_validate(dict(small_policy)), STATS)
    return save_checkpoint(policy, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run_folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A run whose newest checkpoint it is."""
    (tmp_path / "run").mkdir()
    return Path(shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint")).parent


@pytest.fixture
def write_params(tmp_path: Path):
    """write_params({node: parameters}) -> a parameter file."""

    def write(nodes: dict[str, dict]) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in nodes.items()}))
        return path

    return write


@pytest.fixture
def domain_id(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The test's own ROS_DOMAIN_ID, for this process and those it launches."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return ros_domain


class Launched:
    """One finished launch: its exit code, those of its nodes, and the results of its episodes."""

    def __init__(
        self,
        file: str,
        arguments: dict[str, object],
        results_wanted: int,
        domain_id: int,
        result_topic: str,
    ) -> None:
        self._result_topic = result_topic
        self.exit_codes: dict[str, int] = {}
        self.results: list[dict] = []
        launch.logging.reset()  # its handlers keep the standard output of the test before
        self._service = LaunchService(noninteractive=True)
        given = [(name, str(value)) for name, value in arguments.items()]
        source = PythonLaunchDescriptionSource(str(share_dir() / "launch" / file))
        self._service.include_launch_description(
            LaunchDescription(
                [
                    RegisterEventHandler(OnProcessExit(on_exit=self._on_exit)),
                    TimerAction(period=DEADLINE_S, actions=[Shutdown(reason="deadline")]),
                    IncludeLaunchDescription(source, launch_arguments=given),
                ]
            )
        )
        self._over = threading.Event()
        namespace = str(arguments.get("namespace", ""))
        listener = threading.Thread(target=self._listen, args=(namespace, results_wanted, domain_id))
        listener.start()
        try:
            self.code = self._service.run()
        finally:
            self._over.set()
            listener.join()

    def _on_exit(self, event, context) -> None:
        self.exit_codes[event.process_name.rpartition("-")[0]] = event.returncode

    def _listen(self, namespace: str, results_wanted: int, domain_id: int) -> None:
        """Collect the messages of `episode/result`, and end the launch when there are enough."""
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain_id)
        node = rclpy.create_node("listener", context=context, namespace=namespace)
        node.create_subscription(
            String,
            self._result_topic,
            lambda msg: self.results.append(json.loads(msg.data)),
            qos.LATCHED if self._result_topic == "record/status" else qos.RELIABLE_DEEP,
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        while not self._over.is_set():
            executor.spin_once(timeout_sec=0.1)
            if results_wanted and len(self.results) >= results_wanted:
                self._service.shutdown()
                self._over.wait()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture
def run_launch(domain_id: int):
    """run_launch(file, results_wanted=0, result_topic="episode/result", **arguments) -> Launched, when it is over."""

    def run(
        file: str, results_wanted: int = 0, result_topic: str = "episode/result", **arguments: object
    ) -> Launched:
        return Launched(file, arguments, results_wanted, domain_id, result_topic)

    return run


def is_alive(marker: str) -> bool:
    """Whether a process has `marker` in its command line."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in command and int(process.name) != os.getpid():
            return True
    return False


@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_described(file):
    path = str(share_dir() / "launch" / file)
    description = PythonLaunchDescriptionSource(path).get_launch_description(launch.LaunchContext())
    arguments = description.get_launch_arguments()
    needed = {"params_file", "namespace"} | ({"checkpoint"} if file in SERVES else set())
    assert needed <= {argument.name for argument in arguments}
    for argument in arguments:
        assert argument.description not in ("", "no description given"), argument.name


@pytest.mark.sim
@pytest.mark.parametrize("namespace", ["", "left_arm"])
def test_an_episode_runs_and_everything_ends_clean(
    namespace, checkpoint, run_folder, write_params, run_launch
):
    """Also of a run folder, and in a namespace, where ROS would ignore a parameter file that names the nodes without
    it."""
    params = write_params(
        {
            "/**/metaworld_bridge": {"max_steps": 6, "command_timeout_s": 60.0},
            "/**/policy_node": {"threads": 1},
        }
    )
    launched = run_launch(
        "sim.launch.py",
        results_wanted=1,
        checkpoint=run_folder if namespace else checkpoint,
        params_file=params,
        seed=3,
        spectator="none",
        **({"namespace": namespace} if namespace else {}),
    )
    first = launched.results[0]
    assert first.pop("seed") >= 3  # some may be over before the listener is connected
    assert first == {"success": False, "steps": 6, "reason": "time limit"}
    assert launched.exit_codes == {"metaworld_bridge": 0, "policy_node": 0}
    assert launched.code == 0
    assert not is_alive(str(params))


@pytest.mark.sim
@pytest.mark.parametrize("namespace", ["", "left_arm"])
def test_the_simulated_arm_waits_for_a_person_and_everything_ends_clean(namespace, write_params, run_launch):
    """No key is pressed: the episode runs to its time limit by the robot's own clock."""
    params = write_params({"/**/metaworld_bridge": {"max_steps": 6}, "/**/teleop_node": {"rate_hz": 80.0}})
    launched = run_launch(
        "teleop.launch.py",
        results_wanted=1,
        params_file=params,
        task="reach-v3",
        cameras="gripperPOV",
        size="32x32",
        seed=3,
        spectator="none",
        **({"namespace": namespace} if namespace else {}),
    )
    assert launched.results[0]["seed"] >= 3  # the first may be over before the listener is connected
    assert launched.results[0]["reason"] == "time limit"
    assert launched.exit_codes == {"metaworld_bridge": 0, "teleop_node": 0}
    assert launched.code == 0
    assert not is_alive(str(params))


def test_a_robot_gets_the_teleop_node_alone(write_params, run_launch, capfd):
    params = write_params({"/**/teleop_node": {"max_spead_m_s": 0.1}})
    launched = run_launch("teleop.launch.py", params_file=params, robot="true", autostart="true")
    said = "".join(capfd.readouterr())
    assert "unknown parameter 'max_spead_m_s'; did you mean 'max_speed_m_s'?" in said
    assert launched.exit_codes == {"teleop_node": 1}
    assert launched.code == 1


@pytest.mark.parametrize("namespace", ["", "left_arm"])
def test_the_recorder_waits_for_a_robot_and_ends_clean(
    namespace, write_params, run_launch, tmp_path, domain_id
):
    """The listener waits for the recorder's status in place of an episode's result."""
    params = write_params({"/**/recorder_node": {"prefix": "take"}})
    launched = run_launch(
        "record.launch.py",
        results_wanted=1,
        result_topic="record/status",
        params_file=params,
        folder=tmp_path / "bags",
        cameras="left,right",
        task="pour",
        **({"namespace": namespace} if namespace else {}),
    )
    assert launched.results[0] == {"state": "idle"}
    assert launched.exit_codes == {"recorder_node": 0}
    assert launched.code == 0
    assert (tmp_path / "bags").is_dir()


@pytest.fixture
def asked_of_ros2(tmp_path, monkeypatch):
    """A program stands in for `ros2 bag`, and keeps its arguments in the file that is returned."""
    index = tmp_path / "prefix/share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "ros2bag").write_text("")
    ros2 = tmp_path / "bin/ros2"
    ros2.parent.mkdir()
    ros2.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    ros2.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ros2.parent}{os.pathsep}{os.environ['PATH']}")
    prefixes = f"{tmp_path / 'prefix'}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}"
    monkeypatch.setenv("AMENT_PREFIX_PATH", prefixes)
    return tmp_path / "asked"


def test_ros2_bag_is_asked_for_the_same_topics(run_launch, asked_of_ros2, tmp_path):
    run_launch(
        "record.launch.py",
        backend="rosbag2",
        folder=tmp_path / "bags",
        cameras="left",
        topics="tf",
        task="pour",
        compression="zstd",
        namespace="arm",
    )
    asked = asked_of_ros2.read_text().split()
    assert asked[:4] == ["bag", "record", "--storage", "mcap"]
    assert asked[asked.index("--output") + 1].startswith(f"{tmp_path / 'bags'}/episode_")
    assert asked[asked.index("--custom-data") + 1] == "task=pour"
    assert asked[asked.index("--storage-preset-profile") + 1] == "zstd_fast"
    topics = asked[asked.index("--topics") + 1 :]
    assert topics[:3] == ["/arm/camera/left/image_raw", "/arm/ee_pose", "/arm/gripper/state"]
    assert {"/arm/command/ee_pose", "/arm/command/gripper", "/arm/expert/ee_pose", "/arm/tf"} <= set(topics)


def test_a_topics_file_names_the_topics_and_cameras_of_every_launch_file(
    checkpoint, write_params, run_launch, asked_of_ros2, tmp_path, capfd
):
    """Of the recorder, of `ros2 bag record`, which a program stands in for, and of a policy in the shadow."""
    topics = tmp_path / "topics.yaml"
    topics.write_text("cameras: {gripperPOV: /color/image_raw}\nee_pose: /tool\ncommand_pose: /target\n")
    run_launch("record.launch.py", backend="rosbag2", folder=tmp_path / "bags", topics_file=topics)
    asked = asked_of_ros2.read_text().split()
    recorded = asked[asked.index("--topics") + 1 :]
    assert recorded[:3] == ["/color/image_raw", "/tool", "/gripper/state"]
    assert {"/target", "/color/camera_info"} <= set(recorded)
    assert not {"/ee_pose", "/command/ee_pose"} & set(recorded)
    capfd.readouterr()
    both = {"camera_remaps": "gripperPOV:=/a", "topics_file": topics}
    launched = run_launch("policy.launch.py", checkpoint=checkpoint, **both)
    assert "topics_file maps camera 'gripperPOV', too: give one of them" in "".join(capfd.readouterr())
    assert launched.exit_codes == {}
    # The node refuses what it does not know, and so would a parameter that the launch file gave in vain.
    params = write_params({"/**/policy_node": {"gripper_joint": "thumb"}})
    topics.write_text("gripper_joint: finger\n")
    given = {"topics_file": topics, "shadow": "true", "params_file": params}
    launched = run_launch("policy.launch.py", checkpoint=checkpoint, **given)
    said = "".join(capfd.readouterr())
    assert "gripper_joint: policy_node says 'thumb', and topics_file 'finger': give one of them" in said
    assert launched.exit_codes == {"policy_node": 1}


@pytest.mark.parametrize(
    ("file", "arguments", "sim_time", "remaps"),
    [
        ("teleop.launch.py", {}, "true", {"/tf:=tf", "/tf_static:=tf_static"}),
        ("teleop.launch.py", {"robot": "true"}, "false", set()),
        ("record.launch.py", {}, "false", set()),
        (
            "policy.launch.py",
            {"camera_remaps": "gripperPOV:=/wrist/color/image_raw"},
            "false",
            {
                "camera/gripperPOV/image_raw:=/wrist/color/image_raw",
                "camera/gripperPOV/camera_info:=/wrist/color/camera_info",
            },
        ),
    ],
)
def test_rviz_opens_our_file_in_the_namespace_of_the_robot(
    file, arguments, sim_time, remaps, checkpoint, write_params, run_launch, tmp_path, monkeypatch
):
    """A program of that name stands in for RViz, and keeps its arguments. The node beside it ends at once."""
    prefix = tmp_path / "prefix"
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "rviz2").write_text("")
    program = prefix / "lib/rviz2/rviz2"
    program.parent.mkdir(parents=True)
    program.write_text(f"""#!/bin/sh
echo "$@" > {tmp_path}/given
for word in "$@"; do case "$word" in /*launch_params*) cat "$word" >> {tmp_path}/parameters ;; esac; done
""")
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}")
    wrong = {"no_such_parameter": 1}
    params = write_params(
        {f"/**/{node}": wrong for node in ("policy_node", "teleop_node", "metaworld_bridge", "recorder_node")}
    )
    given = {"checkpoint": checkpoint, **arguments} if file in SERVES else arguments
    run_launch(file, rviz="true", namespace="arm", params_file=params, **given)
    words = (tmp_path / "given").read_text().split()
    assert words[:2] == ["-d", str(share_dir() / "config/rviz/dp_ros.rviz")]
    assert {"__ns:=/arm", *remaps} <= set(words)
    assert f"use_sim_time: {sim_time}" in (tmp_path / "parameters").read_text()


def test_the_page_is_served_beside_the_robot_and_ends_with_it(write_params, run_launch, tmp_path, capfd):
    params = write_params({"/**/recorder_node": {"prefix": "take"}})
    launched = run_launch(
        "record.launch.py",
        results_wanted=1,
        result_topic="record/status",
        params_file=params,
        folder=tmp_path / "bags",
        page="true",
        namespace="arm",
    )
    assert launched.exit_codes == {"recorder_node": 0, "watch_node": 0}
    assert launched.code == 0


@pytest.mark.parametrize("file", FILES)
def test_foxglove_says_what_is_missing(file, checkpoint, run_launch, capfd, monkeypatch):
    monkeypatch.setattr("dp_ros.ros.processes.launching.has_foxglove", lambda: False)
    given = {"checkpoint": checkpoint} if file in SERVES else {}
    launched = run_launch(file, foxglove="true", **given)
    assert "foxglove:=true: foxglove-sdk is not installed: pip install" in "".join(capfd.readouterr())
    assert launched.exit_codes == {}
    assert launched.code == 1


def test_a_misspelt_limit_ends_the_launch(checkpoint, write_params, run_launch, capfd):
    """ROS itself ignores parameters that a node does not declare: the gate would stay wide open."""
    params = write_params({"/**/policy_node": {"gate": {"max_sped_m_s": 0.1}}})
    launched = run_launch("policy.launch.py", checkpoint=checkpoint, params_file=params)
    said = "".join(capfd.readouterr())
    assert "unknown parameter 'gate.max_sped_m_s'; did you mean 'gate.max_speed_m_s'?" in said
    assert "Traceback" not in said
    assert launched.exit_codes == {"policy_node": 1}
    assert launched.code == 1


def test_a_watchdog_with_wrong_parameters_ends_the_launch(checkpoint, write_params, run_launch, capfd):
    params = write_params({"/**/policy_watchdog": {"timeout_s": 0.001}})
    given = {"watchdog": "true", "watchdog_params_file": params}
    launched = run_launch("policy.launch.py", checkpoint=checkpoint, **given)
    said = "".join(capfd.readouterr())
    assert "timeout_s" in said, said
    assert launched.exit_codes["policy_watchdog"] == 1
    assert launched.code == 1


@pytest.mark.parametrize(
    ("file", "arguments", "why"),
    [
        ("sim.launch.py", {"checkpoint": "/nowhere"}, "/nowhere: does not exist"),
        ("sim.launch.py", {"checkpoint": "handle-press"}, "did you mean handle-press-v3-unet?"),
        ("sim.launch.py", {"checkpoint": ""}, "checkpoint is empty: give the folder of a checkpoint"),
        ("sim.launch.py", {"seed": "x"}, "seed: 'x' is not a whole number"),
        ("sim.launch.py", {"mode": "fast"}, "Valid options are: ['lockstep', 'realtime']"),
        ("teleop.launch.py", {"seed": "x"}, "seed: 'x' is not a whole number"),
        ("teleop.launch.py", {"size": "96"}, "size: '96' is not WIDTHxHEIGHT"),
        ("teleop.launch.py", {"robot": "yes"}, "Valid options are: ['true', 'false']"),
        ("teleop.launch.py", {"params_file": "/nowhere.yaml"}, "params_file /nowhere.yaml: cannot be read"),
        ("record.launch.py", {"compression": "zip"}, "Valid options are: ['none', 'zstd']"),
        ("record.launch.py", {"cameras": "left arm"}, "cameras.0: String should match pattern"),
        ("record.launch.py", {"backend": "rosbag2"}, "`ros2 bag` is not installed"),
        ("sim.launch.py", {"rviz": "true"}, "rviz:=true: RViz is not installed"),
        ("teleop.launch.py", {"rviz": "true"}, "rviz:=true: RViz is not installed"),
        ("policy.launch.py", {"rviz": "true"}, "rviz:=true: RViz is not installed"),
        ("record.launch.py", {"rviz": "true"}, "rviz:=true: RViz is not installed"),
        ("policy.launch.py", {"checkpoint": "/nowhere"}, "/nowhere: does not exist"),
        (
            "policy.launch.py",
            {"checkpoint": str(share_dir() / "config")},
            "config: is a folder that has no config",
        ),
        ("policy.launch.py", {"params_file": "/nowhere.yaml"}, "params_file /nowhere.yaml: cannot be read"),
        ("policy.launch.py", {"camera_remaps": "foo"}, "camera_remaps: 'foo' is not CAMERA:=TOPIC"),
        ("policy.launch.py", {"camera_remaps": "wrist:=/a"}, "has no camera 'wrist', but gripperPOV"),
        ("policy.launch.py", {"topics_file": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ("record.launch.py", {"topics_file": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ("teleop.launch.py", {"topics_file": "/nowhere.yaml"}, "topics_file: goes with robot:=true"),
        ("policy.launch.py", {"shadow": "yes"}, "Valid options are: ['true', 'false']"),
    ],
)
def test_a_wrong_argument_is_one_line_and_starts_nothing(file, arguments, why, checkpoint, run_launch, capfd):
    given = {"checkpoint": checkpoint, **arguments} if file in SERVES else arguments
    launched = run_launch(file, **given)
    said = "".join(capfd.readouterr())
    assert why in said
    assert "Traceback" not in said
    assert launched.exit_codes == {}
    assert launched.code == 1


@pytest.mark.parametrize(
    "word",
    ["run", "~/run", "run/checkpoint", "{folder}/run", "handle-press-v3-unet", "models/handle-press-v3-unet"],
)
def test_a_policy_is_named_as_in_every_command(word, run_folder, run_launch, capfd, monkeypatch):
    """Its cameras are read; a wrong one ends the launch."""
    monkeypatch.chdir(run_folder.parent)
    monkeypatch.setenv("HOME", str(run_folder.parent))
    named = word.format(folder=run_folder.parent)
    run_launch("policy.launch.py", checkpoint=named, camera_remaps="wrist:=/a")
    assert "has no camera 'wrist', but gripperPOV" in "".join(capfd.readouterr())


def test_a_parameter_file_that_misses_the_node_is_refused(checkpoint, write_params, run_launch, capfd):
    params = write_params({"policy_node": {"gate": {"max_speed_m_s": 0.1}}})
    launched = run_launch("policy.launch.py", checkpoint=checkpoint, params_file=params, namespace="left_arm")
    assert "has no parameters for /left_arm/policy_node, only for /policy_node" in "".join(capfd.readouterr())
    assert launched.exit_codes == {}
    assert launched.code == 1


@pytest.mark.parametrize(
    ("pattern", "node", "matches"),
    [
        ("/policy_node", "/policy_node", True),
        ("/policy_node", "/arm/policy_node", False),
        ("/arm/policy_node", "/arm/policy_node", True),
        ("/**", "/arm/policy_node", True),
        ("/**/policy_node", "/policy_node", True),
        ("/**/policy_node", "/cell/arm/policy_node", True),
        ("/**/policy_node", "/arm/other_node", False),
        ("/*/policy_node", "/arm/policy_node", True),
        ("/*/policy_node", "/cell/arm/policy_node", False),
        ("/*", "/policy_node", True),
    ],
)
def test_names_in_parameter_files_match_as_in_ros(pattern, node, matches):
    assert names_match(pattern, node) == matches
