"""A pod of one container as a process tree: started, told to end, and ended."""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment.conftest import ROOT
from tests.deployment.dockerfiles import Dockerfile
from tests.deployment.kubelet.node import Node
from tests.deployment.kustomize import Object
from tests.deployment.worlds import Pod, World

_NAMESPACES = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Running:
    """A pod that was started."""

    spec: Object
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float) -> int:
        """The container's exit code. Raises TimeoutExpired."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """As a deleted or evicted pod is: preStop, SIGTERM, SIGKILL once its time is over. Returns the exit code."""
        until = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        (container,) = self.spec["containers"]
        time.sleep(container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        self.signal(signal.SIGTERM)
        try:
            return self.wait(until - time.monotonic())
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait(10)
            return 128 + signal.SIGKILL  # unshare's own code says nothing of a killed child

    def signal(self, number: int) -> None:
        """Sends it to the container's first process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split() if self.process.poll() is None else []:
            os.kill(int(child), number)


@contextmanager
def running(node: Node, pod: Pod, name: str, *flags: str, **variables: str) -> Iterator[Running]:
    """Runs a pod for the block. `flags` are added to its arguments, variables are those that its controller adds."""
    folder = node.folder / "pods" / name
    (folder / "root").mkdir(parents=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost {name} {' '.join(node.names)}\n")
    added = [{"name": key, "value": value} for key, value in variables.items()]
    container = pod.container | {"args": [*pod.container["args"], *flags], "env": added + pod.container["env"]}
    values = environment(container, {"metadata": {"name": name, "labels": _labels(pod)}}, node.world)
    root = Root(
        name, folder / "root", list(mounts(pod.spec, container, folder, node)), folder / "hosts",
        read_only=container["securityContext"]["readOnlyRootFilesystem"],
    )  # fmt: skip
    script = root.script(_user(pod.spec, container), image(container).last("WORKDIR"), values)
    arguments = node.inside(*_NAMESPACES, "sh", "-c", script, "sh", *command(container, values))
    with (folder / "log").open("wb") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as process:
        started = Running(pod.spec, process, folder / "log")
        try:
            yield started
        finally:
            started.signal(signal.SIGKILL)


def _labels(pod: Pod) -> dict[str, str]:
    """The template's, and the Job controller's."""
    owner = {"batch.kubernetes.io/job-name": pod.owner["metadata"]["name"]} if pod.owner["kind"] == "Job" else {}
    return pod.labels | owner


def _user(spec: Object, container: Object) -> Sequence[str]:
    """The program that takes the user, and takes away what the manifest says must go. It must say all of it."""
    pod, own = spec["securityContext"], container["securityContext"]
    if not (pod["runAsNonRoot"] and pod["runAsUser"] and own["capabilities"]["drop"] == ["ALL"]):
        raise ValueError("only pods without root and capabilities are run here")
    if own["allowPrivilegeEscalation"]:
        raise ValueError("only pods that may gain no privileges are run here")
    return [
        "setpriv", f"--reuid={pod['runAsUser']}", f"--regid={pod['runAsGroup']}", f"--groups={pod['fsGroup']}",
        "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
    ]  # fmt: skip


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The base image's."""


def image(container: Object) -> Dockerfile:
    """The Dockerfile of its image: that of evoquality/trainer:0.1.0-cpu is trainer.Dockerfile."""
    return Dockerfile(container["image"].partition(":")[0].rpartition("/")[2])


def command(container: Object, environment: Mapping[str, str]) -> list[str]:
    """The manifest's `command` takes the place of the image's ENTRYPOINT and CMD, its `args` that of CMD."""
    entrypoint = container.get("command") or image(container).words("ENTRYPOINT")
    return [expanded(part, environment) for part in [*entrypoint, *container["args"]]]


def environment(container: Object, pod: Object, world: World) -> dict[str, str]:
    """The image's variables under those of the manifest, which may refer to the ones before them."""
    built = {name: value.replace("$PATH", _PATH) for name, value in image(container).environment.items()}
    given: dict[str, str] = {}
    for source in container.get("envFrom", []):
        given |= data(world, source)
    for variable in container.get("env", []):
        given[variable["name"]] = _value(variable, given, pod, world)
    return built | {"HOSTNAME": pod["metadata"]["name"]} | given


def data(world: World, reference: Object) -> dict[str, str]:
    """The content of the ConfigMap or Secret that a `configMapRef`, `secretKeyRef`, `secret` or the like names."""
    ((field, named),) = reference.items()
    kind = "ConfigMap" if field.startswith("configMap") else "Secret"
    held = world.get(kind, named.get("name") or named["secretName"])["data"]
    return dict(held) if kind == "ConfigMap" else {name: base64.b64decode(text).decode() for name, text in held.items()}


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """With $(NAME) replaced where there is one; $$(NAME) becomes $(NAME)."""

    def replaced(found: re.Match[str]) -> str:
        return found[0][1:] if found[0].startswith("$$") else environment.get(found[1], found[0])

    return re.sub(r"\$?\$\(([A-Za-z_][\w.-]*)\)", replaced, text)


def _value(variable: Object, given: Mapping[str, str], pod: Object, world: World) -> str:
    source = variable.get("valueFrom")
    if source is None:
        return expanded(variable.get("value", ""), given)
    ((kind, reference),) = source.items()
    return _field(pod, reference["fieldPath"]) if kind == "fieldRef" else data(world, source)[reference["key"]]


def _field(pod: Object, path: str) -> str:
    """As the downward API names it: metadata.name, metadata.labels['a/b']."""
    part: Any = pod
    for name, quoted in re.findall(r"([A-Za-z]+)|\['([^']+)'\]", path):
        part = part[name or quoted]
    return str(part)


def mounts(spec: Object, container: Object, folder: Path, node: Node) -> Iterator[Mount]:
    """Those above others first. `folder` is the pod's own. Raises ValueError for a kind that is not known here."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in sorted(container["volumeMounts"], key=lambda mount: str(mount["mountPath"])):
        volume, target = volumes[mount["name"]], str(mount["mountPath"])
        match volume:
            case {"emptyDir": {"medium": "Memory", "sizeLimit": size}}:
                yield Mount(target, size=size.removesuffix("i"))
                continue
            case {"emptyDir": _}:
                source, read_only = _new(folder, volume), False
            case {"persistentVolumeClaim": claim}:
                source, read_only = node.claim(claim["claimName"]), claim.get("readOnly", False)
            case {"secret": how} | {"configMap": how}:
                kind = "secret" if "secret" in volume else "configMap"
                source, read_only = _new(folder, volume), True
                _write(source, data(node.world, {kind: how}), how["defaultMode"])
            case _:
                raise ValueError(f"volumes like {volume} are not known here")
        if not (read_only and "persistentVolumeClaim" in volume):
            _give(source, spec["securityContext"]["fsGroup"])
        yield Mount(target, source, read_only or mount.get("readOnly", False))


def _new(folder: Path, volume: Object) -> Path:
    made = folder / "volumes" / str(volume["name"])
    made.mkdir(parents=True)
    if "emptyDir" in volume:
        made.chmod(0o777)
    return made


def _write(folder: Path, files: dict[str, str], mode: int) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(mode)


def _give(folder: Path, group: int) -> None:
    """To the pod's fsGroup, where it is not the root's group already."""
    if folder.stat().st_gid == group:
        return
    for path in [*folder.rglob("*"), folder]:
        os.chown(path, -1, group)
        mode = path.stat().st_mode
        path.chmod(mode | (0o2070 if path.is_dir() else (mode & 0o600) >> 3))


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
"""The place in the images, and where Python's own files say that it is."""


@dataclass(frozen=True)
class Root:
    """The files that a container finds below /, and its host's name."""

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
