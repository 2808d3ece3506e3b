"""SIGTERM: newcomers are told 503, what runs is answered, then the process ends. Real server, real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import KEY, picture


@dataclass
class Process:
    """A service in a process of its own, and who calls it."""

    popen: subprocess.Popen[str]
    url: str
    operator_url: str
    pool: ThreadPoolExecutor
    folder: Path

    def let_answer(self) -> None:
        (self.folder / "answer").touch()

    def score(self) -> Future[httpx.Response]:
        return self.pool.submit(httpx.post, f"{self.url}/v1/score", files={"image": picture()}, timeout=60)

    def wait_until(self, path: str, status: int) -> httpx.Response:
        """Asks until the status is as wanted."""
        end = time.monotonic() + 30
        while (response := httpx.get(self.url + path)).status_code != status:
            assert time.monotonic() < end, response.text
            time.sleep(0.02)
        return response

    def wait_until_busy(self) -> None:
        """Waits until a request is being answered."""
        end = time.monotonic() + 30
        while "iqa_in_flight 1.0" not in httpx.get(f"{self.operator_url}/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.02)

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[float], Process]]:
    """Starts a service that drains for so many seconds, and answers when it is let."""
    started: list[Process] = []

    def start(drain_seconds: float, stderr: int = subprocess.DEVNULL) -> Process:
        command = [sys.executable, "-m", "tests.service.serving", str(tmp_path), str(drain_seconds)]
        popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        public, operator = (f"http://127.0.0.1:{port}" for port in popen.stdout.readline().split())
        process = Process(popen, public, operator, ThreadPoolExecutor(4), tmp_path)
        started.append(process)
        process.wait_until("/health/ready", 200)
        return process

    yield start
    for process in started:
        process.popen.kill()
        process.popen.wait()
        process.pool.shutdown()
        process.popen.stdout.close()


def test_what_runs_is_answered_while_newcomers_are_sent_elsewhere(start):
    process = start(drain_seconds=60)
    running = process.score()
    process.wait_until_busy()
    process.terminate()
    ready = process.wait_until("/health/ready", 503)
    refused = [
        httpx.post(f"{process.url}/v1/score", files={"image": picture()}),
        httpx.post(f"{process.operator_url}/internal/rollouts", headers={"Authorization": f"Bearer {KEY}"}),
    ]
    assert httpx.get(f"{process.url}/health/live").status_code == 200
    assert not running.done()
    for response in (ready, *refused):
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert int(response.headers["retry-after"]) > 0
    process.let_answer()
    assert running.result().status_code == 200
    assert process.popen.wait(300) == 0


def test_an_idle_service_ends_at_once(start):
    process = start(drain_seconds=60)
    process.terminate()
    assert process.popen.wait(300) == 0


def test_what_outlasts_the_drain_is_given_up(start):
    process = start(drain_seconds=0.3)
    running = process.score()
    process.wait_until_busy()
    process.terminate()
    assert process.popen.wait(300) == 0
    assert running.exception() or running.result().status_code >= 500


def test_who_asks_twice_does_not_wait(start):
    process = start(drain_seconds=60)
    process.score()
    process.wait_until_busy()
    process.terminate()
    process.wait_until("/health/ready", 503)
    process.terminate()
    assert process.popen.wait(300) == 0


def test_a_standard_error_that_nobody_reads_stops_neither_answers_nor_the_end(start):
    process = start(drain_seconds=60, stderr=subprocess.PIPE)
    process.let_answer()
    with httpx.Client(base_url=process.url) as client:
        for _ in range(400):  # lines of 300 bytes: a pipe takes 64 KiB
            client.get("/nothing", headers={"X-Request-Id": "x" * 64})
    assert process.score().result().status_code == 200
    process.terminate()
    assert process.popen.wait(300) == 0
    process.popen.stderr.close()
