"""The replicas: `evoquality serve --follow` three times on one store, which they cannot write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.serving import starting

NAMES = ("replica-1", "replica-2", "replica-3")
"""As `haproxy.cfg` names them."""


@dataclass(frozen=True)
class Replica:
    """One process: its addresses and its log."""

    name: str
    public: str
    operator: str
    log: Path


@contextmanager
def fleet(store: Path, folder: Path, follow_seconds: float, spread_seconds: float) -> Iterator[list[Replica]]:
    """Starts the replicas side by side, each with a folder of its own for its state and its log.

    Raises ChildProcessError, with its last words, if one ends before it answers.
    """
    flags = (
        "--follow", "--follow-seconds", str(follow_seconds), "--follow-spread-seconds", str(spread_seconds),
        "--log-format", "json", "--cache-entries", "0",
    )  # fmt: skip
    within = cannot_write(store)
    with ExitStack() as alive:
        services = [
            alive.enter_context(
                starting(store, folder / f"{name}.log", *flags, "--state", str(folder / "state" / name), within=within)
            )
            for name in NAMES
        ]
        for service in services:
            service.wait()
        yield [
            Replica(name, service.public, service.operator, service.log)
            for name, service in zip(NAMES, services, strict=True)
        ]


def cannot_write(folder: Path) -> list[str]:
    """A command that runs another with `folder` mounted read-only; empty where this user may not mount.

    The mount is that process's alone and ends with it.
    """
    mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind -o ro "$0" "$0" && exec "$@"', str(folder.resolve())]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    return mounted if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode == 0 else []
