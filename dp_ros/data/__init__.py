"""Training data: episodes on disk (zarr v3), windows, batches. No torch models, no simulator, no ROS."""
