"""Images in a folder of their own, made with buildah as root: no registry, nothing of the machine's own storage."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.deployment.images import pip

REPOSITORY = Path(__file__).parents[3]
BASE = "localhost/python:3.11-bookworm"
DEBIAN = "bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "python3,python3-venv,ca-certificates"


class Storage:
    """A folder of images. What buildah refuses is raised as CalledProcessError, with its words above."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Takes away what buildah leaves mounted: nobody could delete the folder."""
        subprocess.run(["umount", "--recursive", str(self.folder / "root/overlay")], capture_output=True)

    def has(self, image: str) -> bool:
        """Whether the image is there."""
        return self._buildah("images", "--quiet", "--filter", f"reference={image}") != ""

    def make_base(self) -> None:
        """Debian with Python, from a mirror of Debian's: in the place of the one that a registry has."""
        root = self.folder / "debian"
        shutil.rmtree(root, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(root))
        _drop_apts_files(root)
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(root), "/")
        self._buildah("config", f"--env=PATH={PATH}", container)  # the Dockerfiles put theirs before it
        self._buildah("commit", "--quiet", "--format=docker", "--rm", container, BASE)
        shutil.rmtree(root)

    def build(self, name: str, image: str) -> None:
        """Builds `docker/<name>.Dockerfile` for the CPU."""
        arguments = [f"--build-arg={pair}" for pair in (f"BASE={BASE}", "FLAVOUR=cpu")]
        file = [f"--file=docker/{name}.Dockerfile", f"--tag={image}"]
        # Docker's format alone knows a health check. The host's network: pip and apt go where they go here.
        how = ["--isolation=chroot", "--network=host", "--pull-never", "--format=docker", "--layers"]
        _run(*self._command("build"), *how, *pip.volumes(self.folder), *arguments, *file, ".")

    def configuration(self, image: str) -> dict[str, Any]:
        """How the image is run: Env, User, Entrypoint, Cmd, WorkingDir, Healthcheck."""
        return json.loads(self._buildah("inspect", "--type=image", image))["Docker"]["config"]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Its files, as a folder."""
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
    """Packages, lists and caches, now and after every later step: nor has a registry's base any."""
    (root / "etc/apt/apt.conf.d/docker-clean").write_text('Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n')
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)


def _run(*command: str) -> None:
    subprocess.run(command, cwd=REPOSITORY, check=True)
