"""From demonstrations to a running policy on a robot arm: record, train, evaluate and serve a Diffusion Policy.

The rooms and who may import whom: `schema`, `resources` ← `policy`, `data`, `control`, `sim` ←
`train` ← `evaluation` ← `ros` ← `cli`. Only `dp_ros.ros` imports ROS.
"""

__version__ = "0.1.0"
