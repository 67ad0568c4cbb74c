"""Results of a benchmark as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(path: Path | None, data: dict[str, Any]) -> None:
    """Write `data` as JSON where a path was given."""
    if path:
        from dp_ros.files import write_json

        write_json(path, data)
