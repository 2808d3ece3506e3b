"""A pod of one container as a process tree: started, told to end, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deployment.kubelet.containers import command, environment, image
from tests.deployment.kubelet.node import Node
from tests.deployment.kubelet.roots import Root
from tests.deployment.kubelet.volumes import mounts
from tests.deployment.kustomize import Object
from tests.deployment.worlds import Pod

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
