"""LeRobotDataset v3.0, both ways: `exporter` and `importer`; `layout` is what the format says. Needs pyarrow."""


class LeRobotError(ValueError):
    """A LeRobot folder that cannot be read, or a dataset that cannot become one; one line that says what to do."""
