"""Benchmarks that need ROS: recording and transport."""
