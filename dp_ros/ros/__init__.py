"""Nodes, and conversions between ROS messages and arrays.

The only room that imports rclpy and message packages; the rest installs and is tested without ROS. What belongs here:
topics, parameters, lifecycle, diagnostics, drawing. Decisions about the robot's motion belong in `dp_ros.control`.
"""
