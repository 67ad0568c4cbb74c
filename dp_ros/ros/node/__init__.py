"""Parts that every node shares: lifecycle, process entry, parameters from the schema, QoS profiles, diagnostics."""
