"""`dp_ros bench`: speed and losses of each part on this machine, one file a benchmark."""
