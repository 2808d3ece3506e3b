"""`make images`: builds the CPU images from Debian's packages, without an image registry, and tries them.

Needs Linux, root, buildah and debootstrap; elsewhere use `docker build -f docker/service.Dockerfile .`. The service
runs under its own user with a read-only root, a picture is scored over HTTP, and the trainer runs a tiny round against
it. Measurements go to runs/images/images.json; the images stay in runs/images/storage, so that the next build reuses
them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.deployment.images.containers import try_images
from tests.deployment.images.storage import BASE, REPOSITORY, Storage

FOLDER = REPOSITORY / "runs/images"
IMAGES = {name: f"localhost/evoquality/{name}:0.1.0-cpu" for name in ("service", "trainer")}
ELSEWHERE = "With Docker: docker build -f docker/service.Dockerfile ."
PACKAGES = "buildah debootstrap golang-github-containers-common iproute2 util-linux"
TOOLS = ("buildah", "debootstrap", "ip", "nsenter", "unshare", "setpriv")


def main() -> None:
    """Builds and tries the images, and reports."""
    if lacking := missing():
        sys.exit(lacking)
    with Storage(FOLDER / "storage") as storage:
        report = {**built(storage), **tried(storage)}
    (FOLDER / "images.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def built(storage: Storage) -> dict[str, object]:
    """Seconds that each image took; makes the base image if it is missing."""
    took: dict[str, object] = {"base_seconds": None if storage.has(BASE) else seconds(storage.make_base)}
    for name, image in IMAGES.items():
        print(f"Building {image} (the first time some minutes) ...", flush=True)
        took[f"{name}_build_seconds"] = seconds(partial(storage.build, name, image))
    return took


def tried(storage: Storage) -> dict[str, object]:
    """Tries the images. Exits with the output of the failed command if they fail."""
    try:
        return try_images(storage, IMAGES, FOLDER)
    except subprocess.CalledProcessError as failure:
        sys.exit(f"{' '.join(failure.cmd)} ended with {failure.returncode}\n{failure.stdout}\n{failure.stderr}")
    except RuntimeError as failure:
        sys.exit(str(failure))


def missing() -> str | None:
    """The right or the tools that are missing here and the remedy, or None."""
    if os.geteuid() != 0:
        return f"Only root may build and mount images here: sudo make images. {ELSEWHERE}"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"Not installed: {', '.join(lacking)}. On Debian: apt-get install {PACKAGES}. {ELSEWHERE}"
    return None


def seconds(step: Callable[[], None]) -> float:
    """Seconds that a step takes. Exits if a tool fails, which has printed the reason."""
    start = time.monotonic()
    try:
        step()
    except subprocess.CalledProcessError as failure:
        sys.exit(f"{failure.cmd[0]} failed with {failure.returncode}: see above.")
    return round(time.monotonic() - start, 1)


if __name__ == "__main__":
    main()
