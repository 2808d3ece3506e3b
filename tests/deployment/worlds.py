"""A cluster's objects once an overlay is applied, with the Jobs that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.deployment.kustomize import Object, render

WORLDS = {
    "base": ["base", "evolve/job", "evolve/cronjob", "evolve/torchrun", "versions"],
    "cpu": ["overlays/cpu", "overlays/cpu/evolve", "overlays/cpu/versions"],
    "gpu-7b": ["overlays/gpu-7b", "overlays/gpu-7b/evolve"],
    "replicas": ["overlays/replicas", "evolve/job"],
    "monitoring": ["overlays/monitoring", "evolve/job"],
    "keda": ["overlays/keda", "evolve/job"],
    "kueue": ["base", "overlays/kueue", "overlays/kueue/evolve"],
}
"""The kustomizations that are applied together."""


@dataclass(frozen=True)
class Pod:
    """A pod as its owner makes it: `owner` is the Deployment, Job, CronJob or Pod itself."""

    owner: Object
    labels: dict[str, str]
    spec: Object

    @property
    def name(self) -> str:
        """Of its owner."""
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        """The label that NetworkPolicies and Services know it by."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def container(self) -> Object:
        """Its only one."""
        (only,) = self.spec["containers"]
        return only

    @property
    def ports(self) -> dict[str, int]:
        """The ports it listens on."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}


@dataclass(frozen=True)
class World:
    """Everything that is applied together."""

    objects: list[Object] = field(repr=False)

    def all(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        """Raises LookupError if it is not there."""
        found = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        if not found:
            raise LookupError(f"there is no {kind} {name}")
        return found[0]

    def pods(self) -> Iterator[Pod]:
        """One of each owner's."""
        for each in self.objects:
            if each["kind"] == "Pod":
                yield Pod(each, each["metadata"]["labels"], each["spec"])
            elif each["kind"] in {"Deployment", "Job", "CronJob"}:
                spec = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
                yield Pod(each, spec["template"]["metadata"]["labels"], spec["template"]["spec"])

    def selected(self, labels: dict[str, str]) -> list[Pod]:
        """The pods that have all of these labels."""
        return [pod for pod in self.pods() if labels.items() <= pod.labels.items()]

    def environment(self, pod: Pod) -> dict[str, str]:
        """A container's variables; what only a cluster knows is made up."""
        sources = [self.get("ConfigMap", source["configMapRef"]["name"]) for source in pod.container.get("envFrom", [])]
        found = {name: value for source in sources for name, value in source["data"].items()}
        for variable in pod.container.get("env", []):
            found[variable["name"]] = expanded(variable.get("value", "of-the-cluster"), found)
        return found


def expanded(text: str, environment: dict[str, str]) -> str:
    """With every $(NAME) that the environment has replaced, as Kubernetes does."""
    for name, value in environment.items():
        text = text.replace(f"$({name})", value)
    return text


@cache
def world(manifests: Path, name: str) -> World:
    """The objects that `WORLDS[name]` makes."""
    return World([made for folder in WORLDS[name] for made in render(manifests / folder)])


def values(part: Any, name: str) -> Iterator[Any]:
    """Every value of a field of this name, at any depth."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == name:
            yield value
        yield from values(value, name)
