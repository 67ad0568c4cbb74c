"""Control loop of one arm: frame history, planner, chunk, safety gate, and the controller that ticks them.

Every decision about the robot's motion belongs here. No torch, no ROS.
"""
