"""What training can fail with."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training that cannot begin or go on; one line that says what to do."""


class TrainingPaused(Exception):
    """The time that was given is over; the state is saved."""
