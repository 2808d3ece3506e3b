"""How a container is started: its command, and its environment out of the image, ConfigMaps, Secrets and the pod."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from tests.deployment.dockerfiles import Dockerfile
from tests.deployment.kustomize import Object
from tests.deployment.worlds import World

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The base image's."""


def image(container: Object) -> Dockerfile:
    """What its image was made by: that of evoquality/trainer:0.1.0-cpu is trainer.Dockerfile."""
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
    """What the ConfigMap or Secret holds that a `configMapRef`, `secretKeyRef`, `secret` or the like names."""
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
