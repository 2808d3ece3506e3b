"""A hanging engine is found, no process outlives its service, and a log that nobody reads stops nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.engine.pictures import pictures
from tests.engine.running import SERVE, _free_ports

pytestmark = pytest.mark.engine


class Service:
    """A service of its own, which a test may stop and kill."""

    def __init__(self, checkpoint: Path, folder: Path, *options: str, stderr: int | None = None, **env: str) -> None:
        port, operator_port = _free_ports()
        self.url, self.operator_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operator_port}"
        self.log = folder / "log"
        ports = ["--port", str(port), "--operator-port", str(operator_port)]
        command = [*SERVE, "--store", str(folder / "store"), "--checkpoint", str(checkpoint), *ports, *options]
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stderr=log if stderr is None else stderr
            )

    def status(self, path: str = "/health/ready") -> tuple[int, str]:
        """The status, and the code of a problem."""
        try:
            answer = httpx.get(self.url + path, timeout=60)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json().get("code", "")

    def score(self) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/score", files={"image": pictures(1)[0]}, timeout=60)

    def ready(self) -> Service:
        self.until(lambda: self.status()[0] == 200, 240)
        return self

    def until(self, reached: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end and self.process.is_running(), self.log.read_text()[-4000:]
            time.sleep(0.05)

    def engine(self) -> psutil.Process:
        [found] = [child for child in self.process.children() if "EngineCore" in "".join(child.cmdline())]
        return found

    def end(self) -> None:
        for process in [*self.process.children(recursive=True), self.process]:
            process.kill()
        self.process.wait(30)


@pytest.fixture
def start(checkpoint: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(*options: str, **more: object) -> Service:
        started.append(Service(checkpoint, tmp_path, *options, **environment, **more))
        return started[-1]

    yield start
    for service in started:
        if service.process.is_running():
            service.end()


@pytest.fixture(autouse=True)
def begins_with_the_first_version() -> None:
    """These tests have services of their own."""


def test_a_hanging_engine_is_told_at_once_comes_back_and_ends_the_process_if_it_does_not(start):
    service = start("--hang-seconds", "2", "--hang-exit-seconds", "12").ready()
    engine = service.engine()
    engine.suspend()
    service.until(lambda: service.status() == (503, "engine_hangs"))
    began = time.monotonic()
    refused = service.score()
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_hangs")
    assert int(refused.headers["retry-after"]) > 0
    assert time.monotonic() - began < 5
    assert service.status("/health/live")[0] == 200
    engine.resume()
    service.until(lambda: service.status()[0] == 200)
    assert service.score().status_code == 200
    engine.suspend()
    service.until(lambda: service.status("/health/live") == (503, "engine_hangs"))
    assert service.process.wait(60) == 3
    assert not engine.is_running()
    log = service.log.read_text()
    assert log.count("the engine hangs") == 2 and log.count("answers again") == 1


def test_no_process_outlives_a_service_that_is_killed(start):
    service = start().ready()
    assert service.score().status_code == 200
    children = service.process.children(recursive=True)
    assert any("EngineCore" in "".join(child.cmdline()) for child in children) and len(children) >= 4
    service.process.kill()
    service.process.wait(30)
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_no_process_outlives_a_service_that_is_killed_while_it_starts(start):
    service = start()
    service.until(lambda: any("spawn_main" in "".join(one.cmdline()) for one in service.process.children()), 240)
    children = service.process.children(recursive=True)
    service.process.send_signal(signal.SIGKILL)
    service.process.wait(30)
    assert psutil.wait_procs(children, timeout=120)[1] == []


def test_a_standard_error_that_nobody_reads_stops_neither_answers_nor_the_end(start):
    reader, writer = os.pipe()
    service = start("--log-level", "DEBUG", stderr=writer).ready()
    os.close(writer)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for _ in range(400):  # lines of 200 bytes: a pipe takes 64 KiB
            assert client.get("/health/live", headers={"X-Request-Id": "x" * 64}).status_code == 200
    assert service.score().status_code == 200
    service.process.terminate()
    assert service.process.wait(60) == 0
    os.close(reader)


def test_a_start_says_one_line_a_stage_even_without_a_home(start, tmp_path: Path):
    service = start(HOME="/proc/nowhere", XDG_CACHE_HOME="/proc/nowhere").ready()
    lines = service.log.read_text().splitlines()
    stages = ("reading", "loading", "warming", "serving")
    assert [line for line in lines if "WARNING" in line or "ERROR" in line or "Traceback" in line] == []
    assert len([line for line in lines if '"INFO"' in line and "service.access" not in line]) == len(stages)
    assert len(lines) < 12, lines
