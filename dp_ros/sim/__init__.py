"""Metaworld as a robot arm: the task adapter, its scripted experts, fast offscreen rendering. No ROS, no torch."""
