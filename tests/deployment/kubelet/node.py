"""A node with the network and the claims of a namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.deployment.kustomize import Object
from tests.deployment.worlds import World

PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "chroot")
_NETWORK = """
ip link set lo up
ip link add outward type veth peer name nowhere
ip addr add 10.0.0.1/24 dev outward
ip link set outward up
ip link set nowhere up
ip route add default via 10.0.0.254
echo up
exec sleep infinity
"""
"""An address of its own, as a pod has, and no way out."""


def missing() -> str | None:
    """The reason why no pod can be run here."""
    if os.geteuid():
        return "pods take root"
    if absent := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"pods take {', '.join(absent)}"
    attempt = "mount -t tmpfs none /mnt && mount -t proc none /mnt && ip link add one type veth peer name other"
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork"]
    tried = subprocess.run([*namespaces, "sh", "-c", attempt], capture_output=True, text=True)
    return f"pods take namespaces: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Node:
    """A machine that runs pods. `names` are those of Services and of pods that lead here."""

    world: World
    folder: Path
    network: int
    """Id of the process whose network it is."""
    names: list[str] = field(default_factory=list)

    def claim(self, name: str) -> Path:
        """A claim's folder, made at its first use."""
        folder = self.folder / "claims" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def inside(self, *arguments: str) -> list[str]:
        """The command that runs another one in the node's network."""
        return ["nsenter", f"--net=/proc/{self.network}/ns/net", *arguments]

    def get(self, port: int, path: str, seconds: float = 5) -> str | None:
        """The body of a GET answered with 200, else None: as kubelet probes."""
        ask = "from urllib.request import urlopen; import sys; print(urlopen(sys.argv[1], timeout=60).read().decode())"
        command = self.inside(sys.executable, "-c", ask, f"http://127.0.0.1:{port}{path}")
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return None if told.returncode else told.stdout


@contextmanager
def node(world: World, folder: Path, names: Sequence[str] = ()) -> Iterator[Node]:
    """A network for the block, and `folder` for what its pods keep."""
    services = [service["metadata"]["name"] for service in world.all("Service")]
    with subprocess.Popen(["unshare", "--net", "sh", "-ec", _NETWORK], stdout=subprocess.PIPE) as network:
        try:
            assert network.stdout is not None
            assert network.stdout.readline() == b"up\n"
            yield Node(world, folder, network.pid, [*services, *names])
        finally:
            network.kill()


Action = Literal["FailJob", "Ignore", "Count", "FailIndex"]


def action(job: Object, exit_codes: Mapping[str, int], conditions: Collection[str] = ()) -> Action:
    """The first rule of `podFailurePolicy` that fits decides; Count, towards `backoffLimit`, if none does.

    `exit_codes` are the containers' by name, `conditions` the pod's that are true.
    """
    for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
        if _fits(rule, exit_codes, conditions):
            return rule["action"]
    return "Count"


def _fits(rule: Object, exit_codes: Mapping[str, int], conditions: Collection[str]) -> bool:
    if "onPodConditions" in rule:
        return any(
            each["type"] in conditions and each.get("status", "True") == "True" for each in rule["onPodConditions"]
        )
    asked = rule["onExitCodes"]
    codes = [code for name, code in exit_codes.items() if name == asked.get("containerName", name) and code]
    return any((code in asked["values"]) == (asked["operator"] == "In") for code in codes)
