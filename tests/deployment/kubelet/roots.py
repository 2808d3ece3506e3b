"""A container's root filesystem: a shell script that makes it in a mount namespace, and becomes the container."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.deployment.conftest import ROOT


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine at a path of the container's; without a source, memory."""

    target: str
    source: Path | None = None
    read_only: bool = False
    size: str = "64M"


_SYSTEM = [
    Mount("/usr", Path("/usr"), read_only=True),
    Mount("/sys", Path("/sys"), read_only=True),
    *(Mount(f"/dev/{name}", Path("/dev", name)) for name in ("null", "zero", "random", "urandom")),
    Mount("/dev/shm"),
]
_CODE = [
    *(Mount(str(path), path, read_only=True) for path in dict.fromkeys(map(Path, (sys.base_prefix, ROOT, sys.prefix)))),
    Mount("/opt/venv", Path(sys.prefix), read_only=True),
    Mount("/opt/evoquality/checkpoint", ROOT / "trainer/demo/checkpoint", read_only=True),
]
"""Where the images have it, and where Python's own files say that it is."""


@dataclass(frozen=True)
class Root:
    """What a container finds below /, and its host's name."""

    host: str
    folder: Path
    mounts: Sequence[Mount]
    hosts: Path
    read_only: bool

    def script(self, user: Sequence[str], directory: str, environment: Mapping[str, str]) -> str:
        """Takes the container's command as its arguments. `user` is the program that becomes it, and its flags."""
        at = shlex.quote(str(self.folder))
        start = ["exec", "chroot", str(self.folder), *user, "env", "--ignore-environment", f"--chdir={directory}"]
        return "\n".join([
            "set -eu",
            f"echo {shlex.quote(self.host)} > /proc/sys/kernel/hostname",
            f"mount -t tmpfs -o mode=755 root {at}",
            f"mkdir {at}/proc {at}/dev && mount -t proc proc {at}/proc",
            f"for link in bin sbin lib lib64; do [ ! -L /$link ] || cp -a /$link {at}/; done",
            f"cp -a /etc {at}/ && cp {shlex.quote(str(self.hosts))} {at}/etc/hosts",
            *(line for mount in [*_SYSTEM, *self.mounts, *_CODE] for line in self._mounted(mount)),
            f"mount -o remount,{'ro' if self.read_only else 'rw'} {at}",
            shlex.join([*start, *(f"{name}={value}" for name, value in environment.items())]) + ' "$@"',
        ])  # fmt: skip

    def _mounted(self, mount: Mount) -> list[str]:
        at = shlex.quote(f"{self.folder}{mount.target}")
        if mount.source is None:
            return [f"mkdir -p {at}", f"mount -t tmpfs -o mode=1777,size={mount.size} memory {at}"]
        make = f"mkdir -p {at}" if mount.source.is_dir() else f"touch {at}"
        lines = [make, f"mount --bind {shlex.quote(str(mount.source))} {at}"]
        return [*lines, f"mount -o remount,ro,bind {at}"] if mount.read_only else lines
