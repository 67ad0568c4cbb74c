"""Shared parts of all nodes: lifecycle, process entry, parameters from the schema, QoS profiles, diagnostics."""
