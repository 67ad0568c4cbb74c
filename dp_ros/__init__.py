"""Diffusion Policy for robot arms: from demonstrations to a policy that runs on a robot.

CONTRIBUTING.md has the rooms and which of them may import which. Only `dp_ros.ros` imports ROS.
"""

__version__ = "0.1.0"
