"""Tries built images together: the service scores an image over HTTP, the trainer evolves it by a tiny round."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.deployment.images.container import Container, network, terminate
from tests.deployment.images.storage import Storage
from trainer.demo.contents import content

USER = 10001
CHECKPOINT = "EVOQUALITY_CHECKPOINT=/opt/evoquality/checkpoint"
READY_SECONDS = 300
PICTURES = 12
ROUND = (
    "--rounds", "1", "--variants", "2", "--groups", "2", "--group-size", "4", "--held-back-groups", "1",
    "--samples", "4", "--rank", "8", "--gate-unreadable", "1", "--gate-agreement-loss", "1", "--gate-spread", "0",
    "--gate-largest-spread", "100", "--gate-drift", "4", "--gate-position-bias", "1",
)  # fmt: skip
"""The least that is a round. The gate is open: whether a model improves is not what is tried here."""


def try_images(storage: Storage, images: Mapping[str, str], folder: Path) -> dict[str, object]:
    """Runs the images beside each other on fresh volumes. Returns what was seen.

    Raises RuntimeError if the service gets not ready or does not end in order, CalledProcessError if a command fails.
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
    """An empty folder that belongs to the images' user, as a volume does."""
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
            raise RuntimeError(f"the service did not get ready; {log} ends with:\n{log.read_text()[-3000:]}")
        time.sleep(1)
    return round(time.monotonic() - start, 1)


def _score(inside: Sequence[str], picture: Path) -> dict[str, object]:
    """Asks over HTTP, from outside of the container."""
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
        raise RuntimeError(f"the service ended with {process.returncode} after SIGTERM")
    return round(time.monotonic() - start, 1)
