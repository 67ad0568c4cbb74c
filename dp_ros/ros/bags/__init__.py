"""Bags to frames and datasets, with the same conversions as the live nodes."""
