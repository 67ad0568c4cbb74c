"""Conversions between ROS messages and arrays: pictures, poses, commands, markers."""
