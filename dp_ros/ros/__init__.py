"""The nodes, and the translation between messages and arrays.

The only room that imports rclpy and the message packages; everything below it installs and is tested
without ROS. What may enter: wiring (topics, parameters, lifecycle, diagnostics, drawing). A decision about
what the robot does belongs in `dp_ros.control`.
"""
