"""Benchmarks that need ROS: recorder and transport."""
