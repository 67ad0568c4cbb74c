"""Teleoperation: input of a person (gamepad or keyboard) to commands."""
