from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.deployment.worlds import WORLDS, World, world
from tests.service.conftest import listening, make_listening, make_world, stocked

__all__ = ["listening", "make_listening", "make_world", "stocked"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the deployment's folders, with the key that every user makes for himself."""
    copy = tmp_path_factory.mktemp("deployment")
    for folder in ("k8s", "docker"):
        shutil.copytree(ROOT / folder, copy / folder)
    (copy / "k8s/base/operator.key").write_text("a key of its own\n")
    return copy / "k8s"


@pytest.fixture(params=WORLDS)
def cluster(manifests: Path, request: pytest.FixtureRequest) -> World:
    """A cluster's objects once an overlay is applied, with the Jobs that go with it."""
    return world(manifests, request.param)
