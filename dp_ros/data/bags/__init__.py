"""Bag files: reading, writing, recording, repair and audit. No ROS."""
