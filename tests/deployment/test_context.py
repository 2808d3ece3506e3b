"""The build context holds what an image is made of, and nothing that must not leave the machine."""

from __future__ import annotations

import re
import subprocess

import pytest
from pathspec import PathSpec

from tests.deployment.conftest import ROOT
from tests.deployment.dockerfiles import NAMES, Dockerfile

LINES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
IGNORED = PathSpec.from_lines("gitignore", [re.sub("^!", "!/", line) for line in LINES])
"""Git's rules are Docker's, but for Docker every pattern begins at the root."""


def tracked() -> list[str]:
    """Every file that git knows."""
    return subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")[:-1]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "runs/demo/report.html", "store/operator.key", "store/ACTIVE", ".env",
        "keys.toml",
        "k8s/base/operator.key", "service/operator.key", "service/__pycache__/app.cpython-311.pyc", "photos/1.jpg",
        "trainer/demo/__pycache__/x.pyc", "evaluation/koniq/1.jpg", "tests/hostile.py", "docker/compose.yaml",
    ],
)  # fmt: skip
def test_secrets_results_and_rubbish_stay_out(path: str) -> None:
    assert IGNORED.match_file(path)


def test_all_code_is_sent_and_little_else() -> None:
    left = [path for path in tracked() if not IGNORED.match_file(path)]
    packages = [path for path in tracked() if path.startswith(("service/", "trainer/"))]
    assert set(packages) <= set(left)
    assert {path for path in left if not path.startswith(("service/", "trainer/"))} == {
        "pyproject.toml", "LICENSE", ".ci/constraints.txt", ".ci/cpu-torch", "docker/constraints-gpu.txt",
        "docker/install",
        "docker/install-code", "docker/triton_driver.py",
    }  # fmt: skip
    assert sum((ROOT / path).stat().st_size for path in left) < 40 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_what_the_dockerfiles_copy_is_sent(name: str) -> None:
    left = [path for path in tracked() if not IGNORED.match_file(path)]
    for instruction in Dockerfile(name).instructions:
        if instruction.name == "COPY" and not instruction.value.startswith("--from"):
            for source in instruction.value.split()[:-1]:
                assert any(path == source or path.startswith(f"{source}/") for path in left), source
