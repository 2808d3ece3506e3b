"""A pod's volumes as folders of this machine, and where its container sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.deployment.kubelet.containers import data
from tests.deployment.kubelet.node import Node
from tests.deployment.kubelet.roots import Mount
from tests.deployment.kustomize import Object


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
