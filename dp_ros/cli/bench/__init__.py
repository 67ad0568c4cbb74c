"""Benchmarks: `dp_ros bench NAME` measures one part on this machine, one file each."""
