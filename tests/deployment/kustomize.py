"""A folder rendered as `kubectl kustomize` would, for machines without it: the part of kustomize that k8s/ uses.

Whatever it does not know raises ValueError. Where kubectl is on the machine a test compares the two.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

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


Json = Any

_KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
"""Lists that are merged by a key; `ports` are, by one of two. All others are replaced."""


def merged(old: Json, patch: Json, field: str = "") -> Json:
    """`old` under a strategic merge patch. null removes, and so does `$patch: delete` an item of a list."""
    if isinstance(old, dict) and isinstance(patch, dict):
        both = {name: merged(old.get(name), value, name) for name, value in patch.items() if value is not None}
        return {name: value for name, value in old.items() if name not in patch} | both
    if isinstance(patch, list) and (key := _key(field, patch)):
        return _merged_by(key, old or [], patch)
    return merged({}, patch) if isinstance(patch, dict) else patch


def operated(old: Json, operations: list[Json]) -> Json:
    """`old` after a JSON patch. Raises JsonPatchException where a path is not there."""
    return jsonpatch.apply_patch(old, operations)


def _key(field: str, items: list[Json]) -> str | None:
    if field == "ports":
        return "containerPort" if "containerPort" in items[0] else "port"
    return _KEYS.get(field)


def _merged_by(key: str, old: list[Json], patch: list[Json]) -> list[Json]:
    """The patch's items first, as kustomize has them."""
    known = {item[key]: item for item in old}
    named = {item[key] for item in patch}
    first = [merged(known.get(item[key], {}), item) for item in patch if item.get("$patch") != "delete"]
    return first + [item for item in old if item[key] not in named]


Object = dict[str, Any]

_NO_SUFFIX = "no-suffix"
_DIGITS = str.maketrans("013ae", "ghkmt")


def generate(folder: Path, kind: str, generator: Object, objects: list[Object]) -> None:
    """Adds a ConfigMap or Secret, or merges into the one that is there."""
    data = dict(_lines(folder, generator)) | {
        Path(name).name: (folder / name).read_text() for name in generator.get("files", [])
    }
    if kind == "Secret":
        data = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
    name = generator["name"]
    options = generator.get("options", {})
    if generator.get("behavior") == "merge":
        next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))["data"].update(data)
        return
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data}
    made["metadata"] |= {"labels": options["labels"]} if "labels" in options else {}
    made["metadata"] |= {"namespace": generator["namespace"]} if "namespace" in generator else {}
    made["metadata"][_NO_SUFFIX] = options.get("disableNameSuffixHash", False)
    objects.append(made | ({"type": "Opaque"} if kind == "Secret" else {}))


def finally_named(objects: list[Object]) -> list[Object]:
    """With the names that end in a hash of the content, wherever they stand."""
    names = {each["metadata"]["name"]: _final_name(each) for each in objects if each["kind"] == "ConfigMap"}
    for each in objects:
        _refer(each, names)
        if each["kind"] in {"ConfigMap", "Secret"}:
            each["metadata"]["name"] = names.get(each["metadata"]["name"], each["metadata"]["name"])
            each["metadata"].pop(_NO_SUFFIX, None)
    return objects


def _lines(folder: Path, generator: Object) -> Iterator[tuple[str, str]]:
    lines = [line for name in generator.get("envs", []) for line in (folder / name).read_text().splitlines()]
    for line in lines + generator.get("literals", []):
        if line.strip() and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def _final_name(made: Object) -> str:
    """With kustomize's hash of the content, unless that is turned off. (The name in it is empty in kustomize too.)"""
    name = str(made["metadata"]["name"])
    if made["metadata"].get(_NO_SUFFIX, True):
        return name
    content = json.dumps(
        {"kind": made["kind"], "name": "", "data": made["data"]}, sort_keys=True, separators=(",", ":")
    )
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:10].translate(_DIGITS)}"


def _refer(part: Any, names: dict[str, str]) -> None:
    """Gives references to ConfigMaps their final names."""
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if name in {"configMap", "configMapRef", "configMapKeyRef"}:
            value["name"] = names.get(value["name"], value["name"])
        _refer(value, names)
