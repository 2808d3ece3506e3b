"""ConfigMaps and Secrets as kustomize generates them, and the names that it gives them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
