"""From demonstrations to a running policy on a robot arm: record, train, evaluate and serve a Diffusion Policy.

CONTRIBUTING.md has the rooms and which of them may import which. Only `dp_ros.ros` imports ROS.
"""

__version__ = "0.1.0"
