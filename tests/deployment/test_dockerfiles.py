"""The Dockerfiles pass hadolint and checkov, and what they say of the code is true."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from service.configuration.settings import Settings
from tests.deployment import checkov
from tests.deployment.conftest import ROOT
from tests.deployment.dockerfiles import NAMES, Dockerfile
from trainer.settings.evolve import EvolveSettings

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPILERS = {"build-essential", "gcc", "g++", "clang", "tcc", "cmake", "make", "libc6-dev", "python3-dev"}
PINS = ROOT / "docker/constraints-gpu.txt"
SETTINGS = {"EVOQUALITY_": Settings, "EVOQUALITY_TRAINER_": EvolveSettings}


@pytest.fixture(params=NAMES)
def dockerfile(request: pytest.FixtureRequest) -> Dockerfile:
    return Dockerfile(request.param)


def test_hadolint_has_nothing_to_say(dockerfile: Dockerfile) -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), str(dockerfile.path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not checkov.INSTALLED.exists(), reason="checkov is not installed (.ci/checkov)")
def test_checkovs_policies_are_kept_but_the_one_that_is_waived_with_a_reason() -> None:
    report = checkov.check("dockerfile", ROOT / "docker")
    assert report.passed > 50
    assert not report.failed
    assert {finding.policy for finding in report.waived} == {"CKV_DOCKER_7"}
    assert all(len(finding.waiver) > 20 for finding in report.waived)


def test_a_waiver_stands_below_its_reason(dockerfile: Dockerfile) -> None:
    lines = dockerfile.path.read_text().splitlines()
    for before, line in pairwise(lines):
        if "hadolint ignore" in line:
            assert re.match(r"# \w+", before) and "ignore" not in before, line


def test_any_base_may_be_given_for_every_stage(dockerfile: Dockerfile) -> None:
    first = dockerfile.instructions[0]
    assert (first.name, first.value.split("=")[0]) == ("ARG", "BASE")
    stages = {"${FLAVOUR}"}
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            source, *name = instruction.value.split(" AS ")
            assert source in {"${BASE}", *stages}
            stages.update(name)


def test_the_base_is_a_release_of_python_that_the_project_runs_on(dockerfile: Dockerfile) -> None:
    tag = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", dockerfile.arguments["BASE"])
    assert tag and tag[1] in SpecifierSet(PROJECT["requires-python"])


def test_only_what_the_build_context_has_is_copied(dockerfile: Dockerfile) -> None:
    for instruction in dockerfile.instructions:
        if instruction.name == "COPY" and not instruction.value.startswith("--from"):
            *sources, _ = instruction.value.split()
            assert all((ROOT / source).exists() for source in sources), instruction


def test_extras_exist(dockerfile: Dockerfile) -> None:
    for flavour in ("gpu", "cpu"):
        assert dockerfile.extras(flavour) <= PROJECT["optional-dependencies"].keys()


def test_cuda_is_the_default(dockerfile: Dockerfile) -> None:
    assert dockerfile.arguments["FLAVOUR"] == "gpu"


def test_labels_tell_the_projects_version(dockerfile: Dockerfile) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in dockerfile.labels.items()}
    assert labels["version"] == PROJECT["version"]
    assert labels.keys() >= {"title", "description", "revision"}


def test_the_user_is_a_number_and_the_clusters(dockerfile: Dockerfile) -> None:
    [deployment] = yaml.safe_load_all((ROOT / "k8s/base/deployment.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]["securityContext"]
    assert dockerfile.last("USER") == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    uid, gid = dockerfile.last("USER").split(":")
    [makes_user] = [command for command in dockerfile.commands if "useradd" in command]
    assert f"--uid {uid} --gid {gid}" in makes_user and f"groupadd --gid {gid}" in makes_user


def test_no_compiler_is_in_the_image(dockerfile: Dockerfile) -> None:
    installed = {word for command in dockerfile.commands if "apt-get install" in command for word in command.split()}
    assert not installed & COMPILERS
    copied = [item.value.split()[1] for item in dockerfile.last_stage if item.name == "COPY"]
    assert set(copied) <= {"/opt/venv", "/opt/code", "/opt/evoquality"}


def test_the_entrypoint_is_a_script_of_the_project_that_gets_the_signals(dockerfile: Dockerfile) -> None:
    [script] = dockerfile.words("ENTRYPOINT")
    assert script in PROJECT["scripts"]


def test_variables_are_settings_and_name_folders_that_the_user_may_write(dockerfile: Dockerfile) -> None:
    for name, value in dockerfile.environment.items():
        if name.startswith("EVOQUALITY_"):
            prefix = max((prefix for prefix in SETTINGS if name.startswith(prefix)), key=len)
            assert name.removeprefix(prefix).lower() in SETTINGS[prefix].model_fields
        if name.endswith("_STORE"):
            assert any(command.endswith(value) or f" {value} " in command for command in dockerfile.commands)


def test_the_ports_are_the_settings_defaults() -> None:
    ports = {str(Settings.model_fields[name].default) for name in ("port", "operator_port")}
    assert set(Dockerfile("service").last("EXPOSE").split()) == ports


def test_the_health_check_asks_a_route_of_the_public_port() -> None:
    _, command = Dockerfile("service").last("HEALTHCHECK").split("CMD ")
    _, _, code = json.loads(command)
    compile(code, "HEALTHCHECK", "exec")
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", code)
    assert int(port) == Settings.model_fields["port"].default
    assert path in json.loads((ROOT / "service/openapi.json").read_text())["paths"]


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_passes_when_ready_and_only_then_behind_a_proxy_too(status: int) -> None:
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

    [_, _, code] = json.loads(Dockerfile("service").last("HEALTHCHECK").split("CMD ")[1])
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        checked = subprocess.run(
            [sys.executable, "-c", code.replace(":8000/", f":{server.server_port}/")],
            env={"http_proxy": "http://127.0.0.1:9"},
            capture_output=True,
        )
        server.shutdown()
    assert (checked.returncode == 0) == (status == 200)


def test_the_cuda_service_finds_what_its_build_compiled() -> None:
    service = Dockerfile("service")
    module, name = service.environment["TRITON_CACHE_MANAGER"].split(":")
    cache = importlib.import_module(module)
    assert issubclass(getattr(cache, name), cache.FileCacheManager)
    [run] = [item.value for item in service.instructions if "triton_driver.py" in item.value and item.name == "RUN"]
    assert run.split()[-1] == str(cache.SHIPPED)
    assert cache.SHIPPED.is_relative_to("/opt/evoquality")


def test_the_pins_for_cuda_are_exact_and_fit_the_project() -> None:
    lines = [line for line in PINS.read_text().splitlines() if line[0] != "#"]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    extras = set().union(*(Dockerfile(name).extras("gpu") for name in NAMES), {"serve"})
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= extras
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_pins_are_written_for_the_bases_python(dockerfile: Dockerfile) -> None:
    [python] = re.findall(r"--python-version (\d+\.\d+)", PINS.read_text())
    assert dockerfile.arguments["BASE"].startswith(f"python:{python}.")
