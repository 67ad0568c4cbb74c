"""Other publishers of a node's command topics: two of them would pull the arm apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.node import Node


def other_publishers(node: Node, publishers: Iterable[Any], before: str) -> str:
    """Message about other publishers of the topics of `publishers`; empty where there are none.

    before: what must not begin until they are gone, e.g. "a person drives".
    """
    for publisher in publishers:
        topic = publisher.topic_name  # with its remapping, which the graph's own functions do not know
        if node.count_publishers(topic) > 1:
            names = [info.node_name for info in node.get_publishers_info_by_topic(topic)]
            if node.get_name() in names:
                names.remove(node.get_name())
            return (
                f"{', '.join(sorted(set(names))) or 'another node'} publishes {topic} too: end it, or clean it up, "
                f"before {before}"
            )
    return ""
