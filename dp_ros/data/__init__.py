"""What a policy learns from: episodes on disk (zarr v3), windows, batches. No torch models, no simulator, no ROS."""
