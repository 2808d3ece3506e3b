"""One real service for all engine tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.versions.store import VersionStore
from tests.engine.checkpoints import perturbed
from tests.engine.pictures import pictures
from tests.engine.running import Running, running
from trainer.demo.assemble import POSITIONS, thinking_checkpoint
from trainer.demo.contents import content

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "trainer/demo/checkpoint"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint; before it is trained, one of the same shape with random weights."""
    if (EMBEDDED / "model.safetensors").exists():
        return EMBEDDED
    path = tmp_path_factory.mktemp("random")
    subprocess.run([sys.executable, "-m", "tests.benchmarks.checkpoint.architecture", str(path)], check=True, cwd=ROOT)
    return path


@pytest.fixture(scope="session")
def environment(checkpoint: Path) -> dict[str, str]:
    """Random weights answer no canary readably."""
    return {} if checkpoint == EMBEDDED else {"EVOQUALITY_CANARY_MIN_READABLE": "0"}


@pytest.fixture(scope="session")
def service(
    checkpoint: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service with two versions in its store, `first` active."""
    folder = tmp_path_factory.mktemp("service")
    env = {**environment, "EVOQUALITY_CHECKPOINT": str(checkpoint)}
    with running(folder / "store", folder / "log", env) as started:
        yield started


@pytest.fixture(scope="session")
def first(service: Running) -> str:
    """The version the service began with."""
    return service.store.list()[0].id


@pytest.fixture(scope="session")
def second(service: Running, first: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another version, which answers differently."""
    source = perturbed(service.store.path(first), tmp_path_factory.mktemp("second") / "checkpoint", seed=1)
    return add(service.store, source, first)


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service on the thinking checkpoint, with the profile `evoquality`."""
    folder = tmp_path_factory.mktemp("thinking")
    checkpoint = thinking_checkpoint(folder / "checkpoint")
    env = {
        "EVOQUALITY_CHECKPOINT": str(checkpoint),
        "EVOQUALITY_PROFILE": "evoquality",
        "EVOQUALITY_MAX_MODEL_LEN": str(POSITIONS),
    }
    with running(folder / "store", folder / "log", env) as started:
        yield started


@pytest.fixture(scope="session")
def thinking_versions(thinker: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A version for each thinking profile."""
    boxed = thinker.store.list()[0].id
    source = perturbed(thinker.store.path(boxed), tmp_path_factory.mktemp("tagged") / "checkpoint", 1, scale=1e-4)
    tagged = thinker.store.add(source, parent=boxed, profile="visualquality-r1", origin="test").id
    return {"evoquality": boxed, "visualquality-r1": tagged}


@pytest.fixture(autouse=True)
def begins_with_the_first_version(service: Running, first: str) -> None:
    """Every test finds the same service."""
    service.operators.promote(first)


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    return pictures(12)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five unlabelled pictures."""
    folder = tmp_path_factory.mktemp("pool")
    for index in range(5):
        content("pool", index).save(folder / f"{index}.png")
    return folder


def add(store: VersionStore, source: Path, parent: str) -> str:
    """A version of the store made of a checkpoint directory."""
    return store.add(source, parent=parent, profile="plain", origin="test").id
