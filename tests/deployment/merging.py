"""Patches as Kubernetes applies them: strategic merge, and RFC 6902's operations."""

from __future__ import annotations

from typing import Any

import jsonpatch

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
