"""The documents lead to things that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", TRACKED)
def test_every_relative_link_exists(name: str):
    document = ROOT / name
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", TRACKED)
def test_every_make_target_exists(name: str):
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE)) <= TARGETS


def test_the_readme_is_a_front_door():
    assert (ROOT / "README.md").stat().st_size <= 12_288
