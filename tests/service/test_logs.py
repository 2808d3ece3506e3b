"""The log: one JSON object a line, each with the id of its request; nothing secret."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.api.keys import add_key
from service.observability.logs import configuration, logging_to_stderr, wanted
from tests.service.conftest import World, picture

Capfd = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Puts the loggers back."""
    root, service = logging.getLogger(), logging.getLogger("service")
    levels = root.level, service.level
    yield
    logging.captureWarnings(False)
    root.handlers.clear()
    root.setLevel(levels[0])
    service.setLevel(levels[1])


@contextmanager
def logging_json() -> Iterator[Callable[[Capfd], list[dict]]]:
    """Yields what gives the lines that were logged since, as JSON."""
    with logging_to_stderr("json", "INFO"):
        yield lambda capfd: [json.loads(line) for line in written(capfd).splitlines()]


def written(capfd: Capfd) -> str:
    """What has been logged since, once it is written."""
    logging.getLogger().handlers[-1].queue.join()
    return capfd.readouterr().err


def ask(world: World, run, path: str = "/v1/score", **request) -> None:
    async def story() -> None:
        async with world.public() as client:
            await client.post(path, **request)

    run(story())


def test_an_access_line_has_route_status_time_and_id(world: World, run, capfd: Capfd):
    with logging_json() as lines:
        ask(world, run, files={"image": picture()}, headers={"X-Request-Id": "abc-1"})
        [line] = [line for line in lines(capfd) if line["logger"] == "service.access"]
    assert (line["method"], line["route"], line["status"], line["request_id"]) == ("POST", "/v1/score", 200, "abc-1")
    assert line["milliseconds"] > 0
    assert line["level"] == "INFO" and "timestamp" in line


def test_an_access_line_names_the_key(make_world, run, tmp_path: Path, capfd: Capfd):
    key = add_key(tmp_path / "keys.toml", "gateway", None, None)
    world = make_world(keys_file=tmp_path / "keys.toml")
    with logging_json() as lines:
        ask(world, run, files={"image": picture()}, headers={"Authorization": f"Bearer {key}"})
        [line] = [line for line in lines(capfd) if line["logger"] == "service.access"]
    assert line["key"] == "gateway"
    assert key not in json.dumps(line)


def test_every_line_of_a_request_carries_its_id_and_no_other(world: World, run, capfd: Capfd):
    def accident(*_: object) -> str:
        raise RuntimeError("broken")

    async def story() -> None:
        async with world.public() as client:
            await asyncio.gather(*(client.post("/v1/score", **request) for request in requests))

    world.engine.answer = accident
    identities = [f"call-{index}" for index in range(5)]
    requests = [{"files": {"image": picture()}, "headers": {"X-Request-Id": identity}} for identity in identities]
    with logging_json() as lines:
        run(story())
        found = lines(capfd)
        logging.getLogger("service").info("after")
        assert "request_id" not in lines(capfd)[-1]
    for identity in identities:
        loggers = {line["logger"] for line in found if line.get("request_id") == identity}
        assert loggers == {"service.access", "service.api.problems"}
    assert "RuntimeError: broken" in next(line["exc_info"] for line in found if "exc_info" in line)


def test_other_libraries_log_in_the_same_format(capfd: Capfd):
    with logging_json() as lines:
        logging.getLogger("uvicorn.error").error("from uvicorn")
        logging.getLogger("vllm.engine").error("from vLLM")
        assert [line["logger"] for line in lines(capfd)] == ["uvicorn.error", "vllm.engine"]


def test_warnings_are_lines_of_the_log_too(capfd: Capfd):
    with logging_json() as lines, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library has doubts", stacklevel=1)
        [line] = lines(capfd)
        assert line["logger"] == "py.warnings" and "a library has doubts" in line["message"]


def test_neither_keys_nor_images_are_logged(world: World, run, capfd: Capfd):
    image = base64.b64encode(picture()).decode()
    body, headers = {"image": image, "key": "hidden"}, {"Authorization": "Bearer hidden"}
    with logging_json() as lines:
        ask(world, run, "/v1/score?token=hidden", json=body, headers=headers)
        text = json.dumps(lines(capfd))
    assert "/v1/score" in text
    assert "hidden" not in text and image[:30] not in text


def test_a_person_at_a_terminal_gets_text(monkeypatch: pytest.MonkeyPatch):
    assert wanted(None) == "json"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert (wanted(None), wanted("json")) == ("text", "json")


def test_text_lines_name_the_request_too(world: World, run, capfd: Capfd):
    with logging_to_stderr("text", "INFO"):
        ask(world, run, files={"image": picture()}, headers={"X-Request-Id": "abc-1"})
        text = written(capfd)
    assert "INFO service.access: POST /v1/score 200" in text
    assert text.rstrip().endswith("id=abc-1")


def test_the_processes_of_vllm_log_alike():
    with logging_to_stderr("json", "INFO") as file:
        assert json.loads(Path(file).read_text()) == configuration("json", "INFO")


TALKATIVE = """
import logging, sys
from service.observability import metrics
from service.observability.logs import logging_to_stderr
with logging_to_stderr("text", "INFO"):
    for number in range(10_000):
        logging.getLogger("service").info("line %d %s", number, "x" * 100)
    print(int(metrics.log_lines_dropped._value.get()), flush=True)
    sys.stdin.readline()
    logging.getLogger("service").info("the last line")
print("nobody waits", file=sys.stderr)
"""


def talk(then_read: bool) -> tuple[int, int, str]:
    """A process that logs to a pipe that is read late or never: its exit code, the lines it dropped, what was read."""
    command = [sys.executable, "-c", TALKATIVE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        dropped = int(process.stdout.readline())
        read = "".join(process.stderr.readline() for _ in range(4000 if then_read else 0))  # so there is room again
        process.stdin.close()
        read += process.stderr.read() if then_read else ""
        return process.wait(60), dropped, read


def test_lines_that_nobody_reads_are_dropped_counted_and_keep_nobody_waiting():
    code, dropped, _ = talk(then_read=False)
    assert code == 0 and 4000 < dropped < 10_000


def test_a_reader_that_comes_late_learns_how_many_lines_are_missing():
    code, dropped, read = talk(then_read=True)
    lines = read.splitlines()
    assert code == 0
    assert sum(map(int, re.findall(r"(\d+) lines of the log were dropped", read))) == dropped > 0
    assert sum(" line " in line for line in lines) + dropped == 10_000
    assert "the last line" in lines[-2] and lines[-1] == "nobody waits"
