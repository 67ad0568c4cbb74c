"""Training data: datasets on disk (zarr v3), windows, videos, bags, LeRobot. No torch, no simulator, no ROS."""
