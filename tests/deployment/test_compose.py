"""compose.yaml is a compose file, runs every service confined, and fits the images and the code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import create_model

from service.configuration.settings import Settings
from tests.deployment.conftest import ROOT
from tests.deployment.dockerfiles import Dockerfile
from trainer.settings.evolve import EvolveSettings

FILES = [ROOT / "docker/compose.yaml", ROOT / "docker/compose.gpu.yaml"]
COMPOSE, GPU = (yaml.safe_load(file.read_text()) for file in FILES)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS = {"service": ("EVOQUALITY_", Settings), "trainer": ("EVOQUALITY_TRAINER_", EvolveSettings)}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
services = pytest.mark.parametrize("name", SERVICES)
ours = pytest.mark.parametrize("name", SETTINGS)


def binds(name: str) -> dict[str, str]:
    """The folders and volumes of a service by the path where it sees them."""
    given = [volume for volume in SERVICES[name].get("volumes", ()) if isinstance(volume, str)]
    return {path: source for source, path, *_ in (volume.split(":") for volume in given)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_compose_specification_allows_it(file: Path) -> None:
    check = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.compose-spec",
        str(file),
    ]
    ran = subprocess.run(check, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


@services
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid"}


@services
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


@services
def test_images_have_versions_and_configuration_files_exist(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+", SERVICES[name]["image"])
    for source in binds(name).values():
        assert source in COMPOSE["volumes"] or (ROOT / "docker" / source).is_file(), source


@ours
def test_our_images_are_built_from_our_dockerfiles(name: str) -> None:
    dockerfile, build = Dockerfile(name), SERVICES[name]["build"]
    assert (ROOT / "docker" / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == dockerfile.path
    assert build["args"].keys() | GPU["services"][name]["build"]["args"].keys() <= dockerfile.arguments.keys()
    assert SERVICES[name]["image"] == f"evoquality/{name}:{VERSION}-{build['args']['FLAVOUR']}"
    assert GPU["services"][name]["image"] == f"evoquality/{name}:{VERSION}"
    assert SERVICES[name]["user"] == dockerfile.last("USER")


@ours
def test_variables_are_settings_with_values_they_take(name: str) -> None:
    prefix, settings = SETTINGS[name]
    given = SERVICES[name]["environment"] | GPU["services"][name]["environment"]
    values = {key.removeprefix(prefix).lower(): value for key, value in given.items() if key.startswith(prefix)}
    assert values.keys() <= settings.model_fields.keys()
    fields = {key: (settings.model_fields[key].annotation, settings.model_fields[key]) for key in values}
    create_model("Given", **fields)(**values)


@ours
def test_the_store_is_the_volume_that_both_share(name: str) -> None:
    environment = Dockerfile(name).environment
    [store] = [value for key, value in environment.items() if key.endswith("_STORE")]
    assert binds(name)[store] == "versions"


def test_the_trainers_folders_are_volumes() -> None:
    words = SERVICES["trainer"]["command"]
    assert (
        words[0] == "evolve" and {word.removeprefix("--") for word in words[1::2]} <= EvolveSettings.model_fields.keys()
    )
    [pool] = [volume for volume in SERVICES["trainer"]["volumes"] if isinstance(volume, dict)]
    assert words[words.index("--pool") + 1] == pool["target"] and pool["read_only"]
    assert Path(words[words.index("--run") + 1]).is_relative_to("/runs") and "/runs" in binds("trainer")
    assert SERVICES["trainer"]["profiles"] == ["evolve"]


def test_a_stop_leaves_time_for_the_drain() -> None:
    assert (
        int(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_seconds"].default
    )


def test_addresses_inside_name_services_and_their_ports() -> None:
    operators = Settings.model_fields["operator_port"].default
    monitoring = ROOT / "docker/monitoring"
    prometheus = yaml.safe_load((monitoring / "prometheus.yml").read_text())
    [scraped] = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert SERVICES["trainer"]["environment"]["EVOQUALITY_TRAINER_OPERATOR"] == f"http://service:{operators}"
    assert scraped == f"service:{operators}"
    [source] = yaml.safe_load((monitoring / "grafana/datasources.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert SERVICES.keys() >= {"service", "prometheus"}


def test_prometheus_and_grafana_find_their_files() -> None:
    monitoring = ROOT / "docker/monitoring"
    files = yaml.safe_load((monitoring / "prometheus.yml").read_text())["rule_files"]
    assert {f"/etc/prometheus/{file}" for file in files} <= binds("prometheus").keys()
    [provider] = yaml.safe_load((monitoring / "grafana/dashboards.yaml").read_text())["providers"]
    shown = [path for path in binds("grafana") if Path(path).is_relative_to(provider["options"]["path"])]
    assert [binds("grafana")[path] for path in shown] == ["./monitoring/dashboard.json"]
