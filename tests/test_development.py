"""A contributor can rely on this: hosted CI and pre-commit run what `.ci/run` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/ci.yml"


def test_the_hosted_workflow_is_valid_and_calls_ci_run():
    checker = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([checker, "--builtin-schema", "vendor.github-workflows", WORKFLOW], check=True, capture_output=True)
    [job] = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_pre_commit_runs_what_make_lint_runs():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(".venv", "$(BIN)").replace("$(BIN)/bin", "$(BIN)") for hook in repository["hooks"]]
    [recipe] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "ruff check . " in line]
    assert hooks == [command.replace(" .", "") for command in recipe.removeprefix("\t@").split(" && ")]
