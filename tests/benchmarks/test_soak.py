"""A soak counts what a caller would call a fault, and measures the service from outside."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from service.configuration.settings import Settings
from tests.benchmarks.soak import LIMITS, Observed, broken, figures, overlay, worst_wait
from tests.benchmarks.soak_photographs import SIZE, photograph
from tests.benchmarks.soak_process import Stall, confined, longest_stall
from tests.benchmarks.soak_traffic import Seen

COLD = {"v1": {"a": 2.0, "b": 3.0}, "v2": {"a": 2.1, "b": 3.1}}


def seen(kind: str = "score", sent: float = 0, received: float = 1, **more) -> Seen:
    return Seen(kind, sent, received, 200, **{"versions": {"v1"}, "values": {"a": 2.0}, **more})


def found(*requests: Seen) -> dict[str, float]:
    return figures(Observed(list(requests), [Stall(20, 10)], [(1000, 1800), (1030, 1850.5)]), COLD)


def test_right_answers_of_either_version_break_no_limit():
    figures = found(seen(), seen(versions={"v2"}, values={"a": 2.1, "b": 3.1}), Seen("hung up", 0))
    assert figures.keys() == {"requests", *LIMITS} and not broken(figures)
    assert (figures["requests"], figures["api_growth_mib"], figures["engine_growth_mib"]) == (3, 30, 50.5)


@pytest.mark.parametrize(
    "wrong",
    [{"values": {"a": 2.1}}, {"values": {"a": None}}, {"values": {"c": 2.0}}, {"versions": {"v1", "v2"}},
     {"versions": {"v3"}}],
)  # fmt: skip
def test_an_answer_that_its_version_does_not_give_is_mixed(wrong: dict):
    assert broken(found(seen(), seen(**wrong))) == ["mixed"]


@pytest.mark.parametrize(
    ("problem", "figure"),
    [((503, "too_busy"), "fivexx"), ((504, "deadline_exceeded"), "fivexx"), ((422, "invalid_image"), "lost"),
     ((0, "ReadError"), "lost")],
)  # fmt: skip
def test_a_refusal_and_a_lost_answer_are_faults_also_for_one_picture_of_a_batch(problem: tuple, figure: str):
    assert broken(found(seen(values={}, problems=[problem]), seen("batch"))) == [figure]
    assert broken(found(seen("batch", problems=[problem]))) == [figure]


def test_a_caller_who_gives_too_little_time_is_told_so():
    assert not broken(found(seen("hasty", values={}, problems=[(504, "deadline_exceeded")])))
    assert broken(found(seen("hasty", values={}, problems=[(503, "not_ready")]))) == ["fivexx"]


def test_only_scores_that_overlap_with_a_batch_count_for_the_wait():
    batch = seen("batch", 10, 20)
    assert worst_wait([batch, seen(sent=0, received=9), seen(sent=21, received=29), seen("rank", 11, 19)]) == 0
    assert worst_wait([batch, seen(sent=19, received=22), seen(sent=12, received=13)]) == 3


def test_the_overlay_has_limits_that_the_settings_know():
    flags, limit = overlay()
    names = {flag.removeprefix("--").partition("=")[0].replace("-", "_") for flag in flags}
    assert {"max_in_flight", "decoded_mib", "max_bodies_mib"} <= names <= Settings.model_fields.keys()
    assert limit == 6 * 2**30


def test_photographs_are_large_and_turned():
    with Image.open(io.BytesIO(photograph(1))) as picture:
        assert picture.size == SIZE and picture.getexif()[0x0112] == 6


class _Blocking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers = 0

    def do_GET(self) -> None:
        _Blocking.answers += 1
        if _Blocking.answers == 5:
            time.sleep(0.3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def blocking() -> Iterator[str]:
    """A server that stands still once for 300 ms."""
    server = HTTPServer(("127.0.0.1", 0), _Blocking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_loop_that_stands_still_is_noticed(blocking: str):
    stall = longest_stall(blocking, os.getpid(), 2)
    assert stall.whole >= 300 and stall.own > 100


def test_a_process_that_takes_more_than_its_cgroup_allows_is_ended_and_counted():
    with confined(64 * 2**20) as cgroup:
        if cgroup is None:
            pytest.skip("this user may not make a memory cgroup")
        command = [*cgroup.within(), sys.executable, "-c", "held = bytearray(256 * 2**20)"]
        assert subprocess.run(command, check=False).returncode < 0
        assert cgroup.kills() == 1
    assert not cgroup.folder.exists()
