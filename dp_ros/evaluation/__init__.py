"""Evaluation: episodes on unseen seeds, disturbances, statistics, and reports. No ROS."""
