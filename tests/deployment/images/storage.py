"""Builds images with buildah as root, in a folder of their own: no registry, nothing in the machine's own storage.

Build steps use this machine's pip settings: mirrors, folders of wheels, certificates.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[3]
BASE = "localhost/python:3.11-bookworm"
DEBIAN = "bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "python3,python3-venv,ca-certificates"


def pip_settings() -> dict[str, str]:
    """This machine's pip settings by name; the environment overrides the files, as in pip."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.split("=", 1) for line in listed.stdout.splitlines()]
    ours = [(key, value) for key, value in pairs if key.startswith(("global.", ":env:.", "install."))]
    ours.sort(key=lambda pair: pair[0].startswith(":env:."))
    return {key.rsplit(".", 1)[1]: ast.literal_eval(value) for key, value in ours}


def pip_volumes(folder: Path) -> list[str]:
    """Options of `buildah build` that give its steps this machine's pip settings. Writes a pip.conf into `folder`."""
    found = pip_settings()
    file = folder / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in found.items())]) + "\n")
    mounts = {str(file): "/etc/pip.conf"} | {path: path for value in found.values() for path in _paths(value)}
    return [f"--volume={here}:{there}:ro" for here, there in mounts.items()]


def _paths(value: str) -> list[str]:
    """Local folders and files that a setting names. A file:// index is mounted with its parent, which it links to."""
    named = [Path(word.removeprefix("file://")) for word in value.split()]
    whole = [path.parent if f"file://{path}" in value else path for path in named]
    return [str(path) for path in whole if path.is_absolute() and path.exists()]


class Storage:
    """A folder of images. Failures of buildah, which prints the reason, raise CalledProcessError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Unmounts what buildah leaves mounted, so that the folder can be deleted."""
        subprocess.run(["umount", "--recursive", str(self.folder / "root/overlay")], capture_output=True)

    def has(self, image: str) -> bool:
        """True if the image exists."""
        return self._buildah("images", "--quiet", "--filter", f"reference={image}") != ""

    def make_base(self) -> None:
        """Makes a base image of Debian with Python from a Debian mirror, in place of a registry's."""
        root = self.folder / "debian"
        shutil.rmtree(root, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(root))
        _drop_apts_files(root)
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(root), "/")
        self._buildah("config", f"--env=PATH={PATH}", container)  # the Dockerfiles prepend to it
        self._buildah("commit", "--quiet", "--format=docker", "--rm", container, BASE)
        shutil.rmtree(root)

    def build(self, name: str, image: str) -> None:
        """Builds `docker/<name>.Dockerfile` for the CPU."""
        arguments = [f"--build-arg={pair}" for pair in (f"BASE={BASE}", "FLAVOUR=cpu")]
        file = [f"--file=docker/{name}.Dockerfile", f"--tag={image}"]
        # Only Docker's format has health checks. Host network, so that pip and apt reach the same mirrors as here.
        how = ["--isolation=chroot", "--network=host", "--pull-never", "--format=docker", "--layers"]
        _run(*self._command("build"), *how, *pip_volumes(self.folder), *arguments, *file, ".")

    def configuration(self, image: str) -> dict[str, Any]:
        """The image's Env, User, Entrypoint, Cmd, WorkingDir and Healthcheck."""
        return json.loads(self._buildah("inspect", "--type=image", image))["Docker"]["config"]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's files as a folder."""
        container = self._buildah("from", "--pull-never", image)
        try:
            yield Path(self._buildah("mount", container))
        finally:
            self._buildah("rm", container)

    def _buildah(self, *words: str) -> str:
        return subprocess.run(self._command(*words), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def _command(self, *words: str) -> list[str]:
        return ["buildah", f"--root={self.folder / 'root'}", f"--runroot={self.folder / 'run'}", *words]


def _drop_apts_files(root: Path) -> None:
    """Removes apt's packages, lists and caches, now and after every later step, as registries' base images do."""
    (root / "etc/apt/apt.conf.d/docker-clean").write_text('Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n')
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)


def _run(*command: str) -> None:
    subprocess.run(command, cwd=REPOSITORY, check=True)
