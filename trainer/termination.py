"""SIGTERM and SIGINT end the run by an exception in the main thread: at once, or after a `signals_deferred` block.

Kubernetes sends SIGTERM and kills 30 s later. A second signal ends the process immediately.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_deferring = 0
_came: int | None = None


class Terminated(SystemExit):
    """The process got a signal to end. The exit code is the shell's: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.signal = signal.Signals(number).name


def listen() -> None:
    """Makes the signals raise Terminated from now on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _receive)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Protects work that must not be half done: a signal during the block takes effect at its end."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        if _came is not None and not _deferring:
            raise Terminated(_came)


def came() -> bool:
    """True if a signal waits for the end of a `signals_deferred` block."""
    return _came is not None


def _receive(number: int, _: FrameType | None) -> None:
    global _came
    _came = number
    signal.signal(number, signal.SIG_DFL)
    if not _deferring:
        raise Terminated(number)
