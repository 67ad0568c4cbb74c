"""Diagnosis of an installation and of a robot's topics: measurements in, findings of one line out. No ROS."""
