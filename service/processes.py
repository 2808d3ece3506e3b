"""Child processes that end with the service, however it ends."""

from __future__ import annotations

import ctypes
import os
import select
import signal

_PR_SET_PDEATHSIG = 1


def end_with(service: int) -> None:
    """Makes this process end when its parent does, and at once if the process `service` has ended already.

    Does nothing in the service itself.
    """
    if os.getpid() == service:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _has_ended(service):  # before the call above
        os._exit(1)


def _has_ended(process: int) -> bool:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    except OSError:  # a kernel or a sandbox without this call
        return False
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)
