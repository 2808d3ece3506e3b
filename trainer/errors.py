"""What ends a round before its promotion is done, each with an exit code of its own (see `trainer.cli`)."""

from __future__ import annotations


class GateRefused(Exception):
    """The candidate may not serve; the version it came from goes on serving."""


class PromptMismatch(ValueError):
    """Engine and trainer read the same image or question as different prompts."""


class WrongVersion(Exception):
    """The service no longer serves the version that this round started from."""


class Unreachable(Exception):
    """No replica of the service answered for longer than the trainer's patience."""


class Occupied(Exception):
    """Another trainer is at work there, and did not end in time."""


class DiskFull(OSError):
    """A file could not be written for want of space; those that were there before are whole."""


class Regressed(Exception):
    """The promoted version did not behave as the gate had seen it; the one before serves again."""


class Collapsed(Exception):
    """The policy under training is collapsing onto few answers; the round was stopped."""
