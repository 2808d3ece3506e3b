"""The build context holds what an image is made of, and nothing that must not leave the machine."""

from __future__ import annotations

import subprocess

import pytest

from tests.deployment.conftest import ROOT
from tests.deployment.context import rules, sent
from tests.deployment.dockerfiles import NAMES, Dockerfile

PATTERNS = rules(ROOT / ".dockerignore")


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
    assert sent([path], PATTERNS) == []


def test_all_code_is_sent_and_little_else() -> None:
    left = sent(tracked(), PATTERNS)
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
    left = sent(tracked(), PATTERNS)
    for instruction in Dockerfile(name).instructions:
        if instruction.name == "COPY" and not instruction.value.startswith("--from"):
            for source in instruction.value.split()[:-1]:
                assert any(path == source or path.startswith(f"{source}/") for path in left), source


def test_the_last_fitting_pattern_decides_as_docker_documents_it() -> None:
    assert sent(["a.md", "README.md", "b/README.md", "b/c.md"], ["*.md", "!README.md"]) == [
        "README.md",
        "b/README.md",
        "b/c.md",
    ]
    assert sent(["a.md", "b/c.md", "b/d.txt"], ["**/*.md"]) == ["b/d.txt"]
    assert sent(["a/b", "c/d", "c/e/f"], ["*", "!c", "c/e"]) == ["c/d"]
