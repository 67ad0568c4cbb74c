"""`dp_ros security`: SROS 2 policy file, so that only policy, watchdog and teleoperation may command the arm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_CHECKPOINT = "Checkpoint or run folder, or the name of a shipped model: its cameras are the robot's."


def security(
    policy_file: Annotated[
        Path, typer.Argument(help="File to write, for `ros2 security`; it must not exist.")
    ],
    checkpoint: Annotated[str, typer.Option(help=_CHECKPOINT)] = "drawer-open-v3-unet",
    topics_file: Annotated[
        Path | None, typer.Option(help="Map of the robot's topics, as for `dp_ros convert`.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="ROS namespace of the nodes.")] = "/",
) -> None:
    """Write the SROS 2 policy of our nodes, the robot and people: what each may publish, hear, offer and call.

    `ros2 security generate_artifacts -k KEYSTORE -p FILE` makes the keys of it.

    Example: dp_ros security runs/policy.xml --topics-file config/stand_in.yaml
    """
    from dp_ros.cli.console import check_outputs
    from dp_ros.cli.errors import USAGE, CliError
    from dp_ros.cli.security_policy import enclaves, policy_xml
    from dp_ros.policy.checkpoint_config import policy_config
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.schema import TopicsFile

    if policy_file.exists():
        raise CliError(f"{policy_file}: exists: choose another file, or remove it", USAGE)
    check_outputs(files=(policy_file,))
    cameras = policy_config(find_checkpoint(checkpoint)).encoder.cameras
    topics = TopicsFile(topics_file=str(topics_file or "")).read()
    made = enclaves(cameras, topics.names())
    policy_file.write_text(policy_xml(made, namespace))
    print(f"{policy_file}: enclaves {', '.join(enclave.name for enclave in made)}")
