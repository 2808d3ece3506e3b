"""Runs an image as a cluster does: its own user, command and environment, a read-only root, no capabilities.

No container engine takes part: namespaces come from util-linux, and the network is loopback and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("container.sh")
_SECONDS_TO_END = 75


@contextmanager
def network() -> Iterator[list[str]]:
    """A network with nothing but loopback. Yields what to put before a command that is to run in it."""
    name = f"evoquality-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = ["ip", "netns", "exec", name]
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        yield inside
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@dataclass(frozen=True)
class Container:
    """An image's files and how they are run. `volumes`: FOLDER:PATH or FOLDER:PATH:ro."""

    root: Path
    configuration: Mapping[str, Any]
    network: Sequence[str]
    volumes: Sequence[str] = ()
    environment: Sequence[str] = field(default=())

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The image's entrypoint with these words, to its end. Raises CalledProcessError, with what it said."""
        return subprocess.run(self._command([*self._entrypoint, *words]), check=True, capture_output=True, text=True)

    def healthy(self) -> bool:
        """Whether the image's own health check passes."""
        [kind, *command] = self.configuration["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self._command(command), capture_output=True).returncode == 0

    @contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The image's entrypoint and command; ends with SIGTERM, as a container does."""
        with log.open("w") as output:
            command = self._command([*self._entrypoint, *self.configuration["Cmd"]])
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                yield process
            finally:
                terminate(process)

    @property
    def _entrypoint(self) -> list[str]:
        return list(self.configuration["Entrypoint"])

    def _command(self, words: Sequence[str]) -> list[str]:
        namespaces = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        environment = ["env", "--ignore-environment", f"--chdir={self.configuration['WorkingDir']}"]
        variables = [*self.configuration["Env"], *self.environment]
        contained = [str(_SCRIPT), str(self.root), self.configuration["User"], *self.volumes, "--"]
        return [*self.network, *namespaces, *contained, *environment, *variables, *words]


def terminate(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, at the end SIGKILL. `unshare` passes none on: the first process of the container is told itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is None:
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
