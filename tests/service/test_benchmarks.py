"""Measurements of a version: recorded by operators, shown to everybody."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from evoquality import Client
from evoquality.contract import Benchmark
from tests.service.conftest import KEY, Listening, World, picture
from tests.service.test_http import ask as ask_publicly
from tests.service.test_http import assert_problem
from tests.service.test_operators import ask

BLUR = {"n": 160, "plcc": 0.79, "srcc": 0.77}


def shown(world: World, run) -> dict[str, object]:
    versions = ask_publicly(world, run, "GET", "/v1/versions").json()["versions"]
    return {info["id"]: info["benchmarks"] for info in versions}


def record(world: World, run, version: str, **sets: object):
    return ask(world, run, "PUT", f"/internal/versions/{version}/benchmarks", json={"benchmarks": sets})


def test_results_are_shown_beside_their_version_and_replaced_as_a_whole(world: World, run):
    assert record(world, run, world.first, blur=BLUR, noise=BLUR).status_code == 204
    assert shown(world, run) == {world.first: {"blur": BLUR, "noise": BLUR}, world.second: {}}
    assert record(world, run, world.first, noise=BLUR).status_code == 204
    assert shown(world, run)[world.first] == {"noise": BLUR}


def test_recording_leaves_the_version_as_it_was(world: World, run):
    record(world, run, world.first, blur=BLUR)
    world.store.verify(world.first)


@pytest.mark.parametrize("wrong", [{"plcc": 1.2}, {"n": 0}, {"srcc": "high"}, {"mos": 3}])
def test_results_that_cannot_be_are_refused(world: World, run, wrong: dict[str, object]):
    assert_problem(record(world, run, world.first, blur={**BLUR, **wrong}), 422, "invalid_request")
    assert shown(world, run)[world.first] == {}


@pytest.mark.parametrize("version", ["v0123456789ab", "latest"])
def test_results_of_an_unknown_version_are_not_kept(world: World, run, version: str):
    assert_problem(record(world, run, version, blur=BLUR), 404, "unknown_version")
    assert not list(world.store.root.glob("benchmarks/*"))


def test_a_damaged_file_hides_its_own_results_only(world: World, run):
    for version in (world.first, world.second):
        record(world, run, version, blur=BLUR)
    (world.store.root / "benchmarks" / f"{world.first}.json").write_text("{")
    assert shown(world, run) == {world.first: {}, world.second: {"blur": BLUR}}


def test_the_client_records(listening: Listening):
    with Client(listening.operator_url, KEY) as operators, Client(listening.url) as client:
        operators.record_benchmarks(listening.world.first, {"blur": Benchmark(**BLUR)})
        assert client.versions().versions[0].benchmarks["blur"].plcc == 0.79


def test_the_trainer_records_what_it_evaluates(listening: Listening, tmp_path: Path):
    images = tmp_path / "sets" / "brightness" / "images"
    images.mkdir(parents=True)
    levels = (20, 90, 160, 230)
    for level in levels:
        (images / f"{level}.png").write_bytes(picture(level))
    with (images.parent / "labels.csv").open("w", newline="") as labels:
        csv.writer(labels).writerows([("image", "mos"), *((f"{level}.png", level) for level in levels)])
    (tmp_path / "key").write_text(KEY)
    command = [
        sys.executable, "-m", "trainer", "evaluate", "--benchmarks", str(images.parents[1]), "--samples", "2",
        "--out", str(tmp_path / "out"), "--record", "--service", listening.url, "--operator", listening.operator_url,
        "--operator-key-file", str(tmp_path / "key"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Client(listening.url) as client:
        shown = {version.id: version.benchmarks for version in client.versions().versions}
    measured = shown[listening.world.first]["brightness"]
    assert (measured.n, round(measured.plcc, 3)) == (4, 1.0)
