"""What `kubectl kustomize` makes of a folder, for machines without it: the part of kustomize that k8s/ uses.

Whatever it does not know raises ValueError. Where kubectl is on the machine a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deployment.generators import Object, finally_named, generate
from tests.deployment.merging import merged, operated

_CLUSTER_SCOPED = {"Namespace"}
_SOURCE = "config.kubernetes.io/local-config"
_FIELDS = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "secretGenerator",
    "patches", "images", "replacements",
}  # fmt: skip


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, ready to be applied."""
    objects = [each for each in _build(folder, []) if _SOURCE not in each["metadata"].get("annotations", {})]
    return finally_named(objects)


def load(file: Path) -> list[Object]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def _build(folder: Path, objects: list[Object]) -> list[Object]:
    """Those of `folder` behind `objects`; a component changes these too."""
    asked = load(folder / "kustomization.yaml")[0]
    if unknown := asked.keys() - _FIELDS:
        raise ValueError(f"{folder}: the renderer does not know {', '.join(sorted(unknown))}")
    objects = objects + [each for name in asked.get("resources", []) for each in _resource(folder / name)]
    for name in asked.get("components", []):
        objects = _build(folder / name, objects)
    for kind, generators in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for generator in asked.get(generators, []):
            generate(folder, kind, generator, objects)
    for patch in asked.get("patches", []):
        objects = _patched(folder, patch, objects)
    _set_namespace(objects, asked.get("namespace"))
    _set_images(objects, {image["name"]: image["newTag"] for image in asked.get("images", [])})
    for replacement in asked.get("replacements", []):
        _replace(replacement, objects)
    return objects


def _resource(path: Path) -> list[Object]:
    return _build(path, []) if path.is_dir() else load(path)


def _patched(folder: Path, patch: Object, objects: list[Object]) -> list[Object]:
    """Raises ValueError if it fits no object."""
    changes = load(folder / patch["path"]) if "path" in patch else list(yaml.safe_load_all(patch["patch"]))
    for change in changes:
        fits = _selector(patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]})
        apply: Callable[..., Object] = operated if isinstance(change, list) else merged
        if not any(map(fits, objects)):
            raise ValueError(f"{folder}: a patch fits nothing: {patch}")
        objects = [apply(each, change) if fits(each) else each for each in objects]
    return objects


def _selector(target: Object) -> Callable[[Object], bool]:
    def fits(each: Object) -> bool:
        name = re.fullmatch(target.get("name", ".*"), each["metadata"]["name"])
        return bool(name) and target.get("kind", each["kind"]) == each["kind"]

    return fits


def _set_namespace(objects: list[Object], namespace: str | None) -> None:
    for each in objects:
        if namespace and each["kind"] not in _CLUSTER_SCOPED:
            each["metadata"]["namespace"] = namespace


def _set_images(objects: list[Object], tags: dict[str, str]) -> None:
    for container in _containers(objects):
        name = container["image"].partition(":")[0]
        if name in tags:
            container["image"] = f"{name}:{tags[name]}"


def _containers(part: Any) -> Iterator[Object]:
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if name == "containers":
            yield from value
        yield from _containers(value)


def _replace(replacement: Object, objects: list[Object]) -> None:
    """Copies a field of one object to another."""
    source = replacement["source"]
    value: Any = next(filter(_selector({key: source[key] for key in ("kind", "name")}), objects))
    for step in source["fieldPath"].split("."):
        value = value[step]
    for target in replacement["targets"]:
        for part in filter(_selector(target["select"]), objects):
            for path in target["fieldPaths"]:
                _put(part, path.split("."), value)


def _put(part: Any, path: list[str], value: Any) -> None:
    for step in path[:-1]:
        part = part.setdefault(step, {})
    part[path[-1]] = value
