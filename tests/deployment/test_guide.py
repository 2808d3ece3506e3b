"""Everything that k8s/README.md names exists: alerts, metrics, settings, commands, routes, codes, objects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from service.cli import app
from service.configuration.settings import Settings
from tests.deployment.conftest import ROOT
from tests.deployment.folders import KUSTOMIZATIONS
from tests.deployment.guide import GUIDE, commands, rows, section, spans
from tests.deployment.kustomize import render
from tests.monitoring import asked, rules
from tests.service.test_monitoring import own_samples
from trainer.exit_codes import exit_codes
from trainer.settings.evolve import EvolveSettings

SOURCES = "\n".join(file.read_text() for folder in ("service", "trainer") for file in (ROOT / folder).rglob("*.py"))


def test_every_alert_has_its_section_and_no_other_has() -> None:
    told = re.findall(r"^### (\w+)$", section("## Alerts"), re.MULTILINE)
    assert sorted(told) == sorted(str(rule["alert"]) for rule in rules())


def test_every_metric_exists_and_every_row_of_the_dashboard_is_told() -> None:
    board = json.loads((ROOT / "docker/monitoring/dashboard.json").read_text())
    assert [row for row, *_ in rows("## What to watch")] == [
        panel["title"] for panel in board["panels"] if panel["type"] == "row"
    ]
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in own_samples()}
    assert set(re.findall(r"\biqa_\w+", GUIDE)) <= families
    assert set(re.findall(r"\bvllm:\w+", GUIDE)) <= {selector.metric for selector in asked()}


def test_every_setting_exists() -> None:
    service = {f"EVOQUALITY_{name.upper()}" for name in Settings.model_fields}
    trainer = {f"EVOQUALITY_TRAINER_{name.upper()}" for name in EvolveSettings.model_fields}
    named = set(re.findall(r"\bEVOQUALITY_\w+", GUIDE))
    assert named and named <= service | trainer


def test_every_command_of_evoqualitys_and_its_flags_exist() -> None:
    found = commands("evoquality ")
    assert len(found) > 5
    for _, *words in found:
        command: Any = get_command(app)
        while hasattr(command, "commands") and words:
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, command.name


def test_every_flag_of_the_trainers_and_of_its_launch_exists() -> None:
    launch = (ROOT / "k8s/evolve/launch").read_text()
    known = {f"--{name.replace('_', '-')}" for name in EvolveSettings.model_fields}
    known |= {flag for case in re.findall(r"^ +(.*--[\w-]+)\)", launch, re.MULTILINE) for flag in case.split(" | ")}
    launched = {word for words in commands("k8s/evolve/launch") for word in words if word.startswith("--")}
    alone = {span.split()[0] for span in spans() if span.startswith("--")} - {"--profile"}
    assert launched and alone and launched | alone <= known


def test_every_route_exists() -> None:
    documents = [json.loads((ROOT / f"service/openapi{part}.json").read_text()) for part in ("", "-operators")]
    named = set(re.findall(r"/(?:health|v1|internal)/[\w/]+", GUIDE))
    assert named and named <= {path for document in documents for path in document["paths"]}


def test_every_exit_code_is_told_with_what_the_job_does_of_it() -> None:
    told = {
        int(number): does
        for codes, _, does, _ in rows("### When the trainer's Job has failed")
        for number in codes.split(", ")
    }
    assert told.keys() == {row.code for row in exit_codes()} | {0}
    job = yaml.safe_load((ROOT / "k8s/evolve/job/job.yaml").read_text())
    [final] = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert {number for number, does in told.items() if does == "stops"} == set(final["onExitCodes"]["values"])
    assert set(told.values()) == {"ends", "stops", "tries again"}


def test_every_file_exists() -> None:
    named = set(re.findall(r"(?<![\w/.])(?:k8s|docker|service|trainer|tests)/[\w./-]+\w", GUIDE))
    yours = {"k8s/base/operator.key"}
    assert len(named) > 10
    assert not [name for name in named - yours if not (ROOT / name).exists()]


def test_every_overlay_and_every_kind_of_job_is_told() -> None:
    applied = {folder for folder in KUSTOMIZATIONS if re.fullmatch(r"base|overlays/[\w-]+|evolve/[\w-]+", folder)}
    assert {f"k8s/{folder}" for folder in applied} == set(re.findall(r"^\| `(k8s/[^`]+)` \|", GUIDE, re.MULTILINE))


def test_every_code_reason_and_stage_is_a_word_of_the_services_own() -> None:
    words = {span for span in spans() if re.fullmatch(r"[a-z]+(_[a-z]+)+", span)}
    assert len(words) > 10
    assert not [word for word in words if f'"{word}"' not in SOURCES and not word.startswith("iqa_")]


def test_every_object_that_is_named_is_in_the_manifests(manifests: Path) -> None:
    kinds = {"deploy": "Deployment", "deployment": "Deployment", "job": "Job", "cronjob": "CronJob", "pod": "Pod"}
    objects = [each for folder in KUSTOMIZATIONS for each in render(manifests / folder)]
    known = {(each["kind"], each["metadata"]["name"]) for each in objects}
    yours = {"photos-1", "price"}
    named = re.findall(rf"\b({'|'.join(kinds)})/([a-z][\w-]*)", "\n".join(spans()))
    assert named and {(kinds[kind], name) for kind, name in named if name not in yours} <= known


def test_every_link_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", GUIDE)) <= headings
