"""A store that is backed up by the guide's own commands is restored by them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from service.versions.store import VersionStore
from tests.deployment.guide import GUIDE
from tests.service.conftest import checkpoint

[BACK_UP] = re.findall(r"kubectl exec versions -- sh -c '(mkdir.*?)' > store\.tar", GUIDE, re.DOTALL)
[RESTORE] = re.findall(r"kubectl exec -i versions -- (.*?) < store\.tar", GUIDE)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    """Two versions, the second active, and half of a third."""
    store = VersionStore(tmp_path / "store")
    for seed, name in enumerate("ab"):
        info = store.add(checkpoint(tmp_path / name, seed), parent=None, profile="plain", origin="a test")
        store.activate(info.id)
    (store.root / "versions/.adding-half").mkdir()
    return store


def backed_up(store: VersionStore, tmp_path: Path) -> bytes:
    command = BACK_UP.replace("/tmp", str(tmp_path))
    return subprocess.run(["sh", "-c", command], cwd=store.root, stdout=subprocess.PIPE, check=True).stdout


def test_a_restored_store_has_the_pointer_and_every_version_whole(store: VersionStore, tmp_path: Path) -> None:
    restored = VersionStore(tmp_path / "restored")
    restored.root.mkdir()
    subprocess.run(RESTORE.split(), input=backed_up(store, tmp_path), cwd=restored.root, check=True)
    assert restored.active() == store.active()
    assert {restored.verify(info.id).id for info in restored.list()} == {info.id for info in store.list()}


def test_the_pointer_comes_last_and_no_half_of_a_version_at_all(store: VersionStore, tmp_path: Path) -> None:
    listed = subprocess.run(["tar", "-t"], input=backed_up(store, tmp_path), capture_output=True, check=True).stdout
    names = listed.decode().split()
    assert names[-1] == "ACTIVE"
    assert not [name for name in names if "half" in name]
