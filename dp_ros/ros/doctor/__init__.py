"""Collecting of what `dp_ros.doctor` judges: the ROS installation, and a robot's topics."""
