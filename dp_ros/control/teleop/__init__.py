"""Teleoperation: input of a person (gamepad or keyboard) to commands, through the policy's gate."""
