"""Export to LeRobotDataset v3.0 and import from it; `layout` is the format itself. Needs pyarrow."""

from dp_ros.errors import UserError


class LeRobotError(UserError):
    """A LeRobot folder that cannot be imported, or a dataset that cannot be exported; one line with the remedy."""
