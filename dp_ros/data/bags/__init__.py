"""Bag files: reading, writing, repair, audit and the label of a recorded episode. No ROS."""
