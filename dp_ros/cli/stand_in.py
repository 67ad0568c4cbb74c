"""`dp_ros stand-in`: a small simulated arm with its own topics and units, in the place of a robot."""

from __future__ import annotations

from typing import Annotated

import typer


def stand_in(
    context: typer.Context,
    demonstrations: Annotated[
        int,
        typer.Option(
            min=0, help="Number of scripted demonstrations for a recorder, before it waits for commands."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first start of arm and block.")] = 0,
    put_back: Annotated[
        bool,
        typer.Option(
            "--put-back", help="Make the running stand-in drive to its start and put the block back."
        ),
    ] = False,
) -> None:
    """Run a stand-in robot, to try dp_ros without a robot. config/stand_in.yaml names its topics.

    It has a wrist camera of 640x480 at 30 Hz, joints and tool pose at 125 Hz, a tilted tool, and a gripper in metres.
    It stops where it is when no command comes. Further ROS arguments follow --ros-args. It ends with Ctrl-C.

    Example: dp_ros stand-in --demonstrations 10
    """
    from dp_ros.ros.processes.environment import require_ros, use_our_transports

    require_ros()
    use_our_transports()
    from dp_ros.ros.nodes import stand_in as node

    if put_back:
        print(node.ask_put_back())
        return
    given = ["--ros-args", "-p", f"demonstrations:={demonstrations}", "-p", f"first_seed:={seed}"]
    node.main([*given, *context.args])
