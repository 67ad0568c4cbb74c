"""Recorded bags to frames and datasets, with the same conversions as the live node."""
