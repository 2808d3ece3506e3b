"""Runs images as a cluster does, and tries service and trainer against each other.

A container has the image's user, command and environment, a read-only root and no capabilities. No container engine is
involved: namespaces come from util-linux, and the network is loopback only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deployment.images.storage import Storage
from trainer.demo.contents import content

_SCRIPT = Path(__file__).with_name("container.sh")
_SECONDS_TO_END = 75
USER = 10001
CHECKPOINT = "EVOQUALITY_CHECKPOINT=/opt/evoquality/checkpoint"
READY_SECONDS = 300
PICTURES = 12
ROUND = (
    "--rounds=1",
    "--variants=2",
    "--groups=2",
    "--group-size=4",
    "--held-back-groups=1",
    "--samples=4",
    "--rank=8",
    "--gate-unreadable=1",
    "--gate-agreement-loss=1",
    "--gate-spread=0",
    "--gate-largest-spread=100",
    "--gate-drift=4",
    "--gate-position-bias=1",
)
"""The smallest possible round, with an open gate: improvement is not tested here."""


@contextmanager
def network() -> Iterator[list[str]]:
    """A network namespace with only loopback. Yields the command prefix that runs a program in it."""
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
    """An image's files and configuration. `volumes`: FOLDER:PATH or FOLDER:PATH:ro."""

    root: Path
    configuration: Mapping[str, Any]
    network: Sequence[str]
    volumes: Sequence[str] = ()
    environment: Sequence[str] = field(default=())

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the image's entrypoint with these arguments to its end. Raises CalledProcessError with its output."""
        return subprocess.run(self._command([*self._entrypoint, *words]), check=True, capture_output=True, text=True)

    def healthy(self) -> bool:
        """True if the image's health check passes."""
        [kind, *command] = self.configuration["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self._command(command), capture_output=True).returncode == 0

    @contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Runs the image's entrypoint and command until the block ends, then sends SIGTERM."""
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
    """Sends SIGTERM, then SIGKILL after a timeout. `unshare` forwards no signals, so its child gets them directly."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is None:
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def try_images(storage: Storage, images: Mapping[str, str], folder: Path) -> dict[str, object]:
    """Runs both images on fresh volumes. Returns measurements.

    Raises RuntimeError if the service is not ready in time or exits with an error, CalledProcessError if a command
    fails.
    """
    volumes = {name: _volume(folder / "volumes" / name) for name in ("store", "runs", "pool")}
    for number in range(PICTURES):
        content("pool", number).save(volumes["pool"] / f"{number}.png")
    with ExitStack() as stack:
        inside = stack.enter_context(network())
        roots = {name: stack.enter_context(storage.mounted(image)) for name, image in images.items()}
        how = {name: storage.configuration(image) for name, image in images.items()}
        binds = {name: f"{place}:/{name}" for name, place in volumes.items()}
        service = Container(roots["service"], how["service"], inside, [binds["store"]], [CHECKPOINT])
        trainer = Container(roots["trainer"], how["trainer"], inside, [*binds.values()])
        seen: dict[str, object] = {f"{name}_bytes": _bytes(root) for name, root in roots.items()}
        trainer.run("evolve", "--help")
        process = stack.enter_context(service.running(folder / "service.log"))
        seen["ready_seconds"] = _ready(service, process, folder / "service.log")
        seen["scored"] = _score(inside, volumes["pool"] / "0.png")
        seen["round_seconds"] = _round(trainer)
        seen["scored_after_the_round"] = _score(inside, volumes["pool"] / "0.png")
        seen["stop_seconds"] = _stop(process)
    return seen


def _volume(folder: Path) -> Path:
    """An empty folder owned by the images' user, like a volume."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    return folder


def _bytes(root: Path) -> int:
    return int(subprocess.check_output(["du", "--summarize", "--bytes", str(root)]).split()[0])


def _ready(service: Container, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds until the image's health check passes."""
    print("Waiting for the service's health check ...", flush=True)
    start = time.monotonic()
    while not service.healthy():
        if process.poll() is not None or time.monotonic() > start + READY_SECONDS:
            raise RuntimeError(f"the service was not ready in time; {log} ends with:\n{log.read_text()[-3000:]}")
        time.sleep(1)
    return round(time.monotonic() - start, 1)


def _score(inside: Sequence[str], picture: Path) -> dict[str, object]:
    """Scores a picture over HTTP from outside the container."""
    command = [*inside, str(Path(sys.executable).with_name("evoquality")), "score", str(picture), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _round(trainer: Container) -> float:
    print("Running a tiny round ...", flush=True)
    start = time.monotonic()
    trainer.run("evolve", "--pool", "/pool", "--run", "/runs/first", *ROUND)
    return round(time.monotonic() - start, 1)


def _stop(process: subprocess.Popen[bytes]) -> float:
    start = time.monotonic()
    terminate(process)
    if process.returncode != 0:
        raise RuntimeError(f"the service exited with {process.returncode} after SIGTERM")
    return round(time.monotonic() - start, 1)
