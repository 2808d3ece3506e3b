"""`evoquality-trainer evaluate` against the real service: killed, resumed, computed again, compared."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.running import Running
from trainer.demo.benchmarks import write_set

pytestmark = pytest.mark.engine

IMAGES = 160


@pytest.fixture(scope="module")
def blur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "blur"
    write_set(folder, "blur", first_content=0)
    return folder


def evaluate(blur: Path, out: Path, url: str, *models: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "trainer", "evaluate", "--benchmarks", str(blur), "--models", ",".join(models),
        "--service", url, "--out", str(out), "--resamples", "100",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said


def results(out: Path) -> dict[str, dict[str, object]]:
    return json.loads((out / "results.json").read_text())["models"]


def test_a_killed_evaluation_goes_on_and_a_finished_one_needs_no_service(
    service: Running, first: str, blur: Path, tmp_path: Path
) -> None:
    out, kept = tmp_path / "out", tmp_path / "out" / "predictions" / "serving" / "blur.jsonl"
    killed = evaluate(blur, out, service.url, "serving")
    while killed.poll() is None and not (kept.exists() and kept.stat().st_size > 1000):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = kept.read_bytes()
    assert 0 < before.count(b"\n") < IMAGES
    finished(evaluate(blur, out, service.url, "serving"))
    assert kept.read_bytes().startswith(before[: before.rfind(b"\n")])
    there = results(out)
    assert (there["serving"]["version"], there["serving"]["benchmarks"]["blur"]["n"]) == (first, IMAGES)
    finished(evaluate(blur, out, "http://127.0.0.1:9", "serving"))
    assert results(out) == there


def test_a_checkpoint_is_compared_with_what_serves(
    service: Running, first: str, checkpoint: Path, blur: Path, tmp_path: Path
) -> None:
    """The same weights, answered by a service that is started for them."""
    finished(evaluate(blur, tmp_path, service.url, "serving", str(checkpoint)))
    found = results(tmp_path)
    one, other = found["serving"], found[str(checkpoint)]
    assert one["version"] == other["version"] == first
    assert other["benchmarks"]["blur"]["srcc"] == pytest.approx(one["benchmarks"]["blur"]["srcc"], abs=1e-3)
    assert other["tests"]["blur"]["p_corrected"] > 0.05
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["serving", str(checkpoint)]
    assert not (tmp_path / ".store").exists()
