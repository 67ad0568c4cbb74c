"""pyarrow; LeRobotError with the command to install it where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dp_ros.data.lerobot import LeRobotError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError:
    raise LeRobotError(
        "LeRobot's tables need pyarrow, which is not installed: pip install 'dp_ros[lerobot]'"
    ) from None

__all__ = ["pa", "pq", "read_table"]


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One parquet file. `partitioning=None`, because pyarrow would take folders named `key=value` for columns."""
    return pq.read_table(path, columns=columns, partitioning=None)
