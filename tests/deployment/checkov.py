"""checkov's policies, from the environment that `.ci/checkov` sets up."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment.conftest import ROOT

PROGRAM = ROOT / ".venv/checkov/bin/checkov"
INSTALLED = PROGRAM.parents[1] / ".installed"


@dataclass(frozen=True)
class Finding:
    """A policy, what it was asked of, and, where it is waived, why."""

    policy: str
    resource: str
    about: str
    waiver: str = ""


@dataclass(frozen=True)
class Report:
    """The findings of checkov. `passed` counts the checks that had nothing to say."""

    passed: int
    failed: list[Finding]
    waived: list[Finding]


def check(framework: str, folder: Path) -> Report:
    """Checks all files of a folder; asks nothing of any network."""
    asked = ["--framework", framework, "--directory", str(folder), "--skip-download", "--output", "json"]
    told = subprocess.run([PROGRAM, *asked], capture_output=True, text=True).stdout
    found = json.loads(told)
    results = found["results"]
    failed, waived = (list(map(_finding, results[kind])) for kind in ("failed_checks", "skipped_checks"))
    return Report(found["summary"]["passed"], failed, waived)


def _finding(told: dict[str, Any]) -> Finding:
    reason = told["check_result"].get("suppress_comment") or ""
    return Finding(told["check_id"], told["resource"], told["check_name"], reason)
