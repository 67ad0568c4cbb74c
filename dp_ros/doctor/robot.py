"""Judgement of a robot before its policy is activated: measurements of its topics to findings."""

from __future__ import annotations

from dp_ros.doctor import arrival, content
from dp_ros.doctor.findings import Finding, error, ok, warning
from dp_ros.doctor.measurements import CommandTopic, Expected, RobotHeard


def judge(heard: RobotHeard, expected: Expected) -> list[Finding]:
    """Findings of all topics, in the order of the topics for each kind of fault."""
    found = arrival.presence(heard) + arrival.refusals(heard) + arrival.single_publishers(heard)
    found += arrival.clocks(heard, expected) + arrival.rates(heard, expected)
    for camera in heard.cameras:
        found += content.pictures(camera, expected)
    found += content.pose(heard.ee_pose, expected) + content.gripper(heard.gripper, expected)
    for topic in heard.commands:
        found += commands(topic)
    return found


def commands(topic: CommandTopic) -> list[Finding]:
    """Other publishers of a command topic, and its subscribers."""
    found = []
    if topic.publishers:
        who = ", ".join(sorted({each.node for each in topic.publishers}))
        what = (
            f"{who} commands the arm now"
            if topic.messages
            else f"{who} publishes it, too, and may command the arm"
        )
        found.append(error(topic.where, what, "end it before the policy is activated"))
    elif topic.messages:
        found.append(
            error(
                topic.where,
                f"{topic.messages} commands came while the policy was inactive",
                "find and end their publisher",
            )
        )
    heard_by = [each for each in topic.subscribers if not each.apart]
    found += [
        error(topic.where, f"no command would arrive at {each.node}", each.apart)
        for each in topic.subscribers
        if each.apart
    ]
    if not topic.subscribers:
        found.append(
            warning(
                topic.where,
                f"nobody listens ({topic.type}), so the arm would not move",
                "start the robot's driver, or remap the topic",
            )
        )
    elif heard_by and not topic.publishers:
        found.append(
            ok(topic.where, f"heard by {', '.join(sorted({each.node for each in heard_by}))}, no other publisher")
        )  # fmt: skip
    return found
