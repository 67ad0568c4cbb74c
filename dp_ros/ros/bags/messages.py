"""Serialized messages of a bag to objects with the fields of the ROS messages. Works without ROS."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dp_ros.data.bags.reader import BagError
from dp_ros.documents import parse_json


def decode(data: bytes, type_name: str, topic: str, path: Path) -> Any:
    """The message of one topic of the bag `path`; BagError where the bytes are not of this type."""
    try:
        return _typestore().deserialize_cdr(data, type_name)
    except Exception as error:  # damaged bytes raise many kinds
        raise BagError(
            f"{path}: a message on {topic} cannot be read ({type(error).__name__}: {error})"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`; empty for other text, because others may use our names for something else."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=1)
def _typestore() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)
