"""Bodies that mean harm by their size or their slowness, over real connections: they cost nobody but their sender."""

from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import itertools
import json
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from evoquality.contract import ScoreRequest
from service.api.keys import add_key
from service.api.outline import Outline
from service.errors import InvalidRequest
from tests.service.conftest import KEY, Listening, World, picture
from tests.service.loop import LONGEST_SECONDS

MIB = 2**20
IMAGE = picture(128)
TEXT = base64.b64encode(IMAGE).decode()
JSON = {"Content-Type": "application/json"}


class Body(NamedTuple):
    """A long JSON body: `middle` again and again, up to `size` bytes."""

    path: str
    size: int
    begin: bytes
    middle: bytes
    end: bytes

    def parts(self) -> Iterator[bytes]:
        yield self.begin
        part = self.middle * (MIB // len(self.middle))
        yield from itertools.repeat(part, self.size // len(part))
        yield self.end

    @property
    def length(self) -> int:
        return sum(map(len, self.parts()))


SCORE, BATCH, RANK, ROLLOUTS, VOTES = (
    "/v1/score",
    "/v1/score/batch",
    "/v1/rank",
    "/internal/rollouts",
    "/internal/exact-votes",
)
IMAGES = b'{"images": ["'
BODIES = {
    "unknown names": Body(SCORE, 19 * MIB, b"{", b'"abc": 1, ', b'"image": ""}'),
    "names without values": Body(SCORE, 19 * MIB, b"{", b'"a" ', b"}"),
    "a long name": Body(SCORE, 19 * MIB, b'{"', b"a", b'": 1}'),
    "the same name": Body(SCORE, 19 * MIB, b"{", b'"image": "eA==", ', b'"image": ""}'),
    "the same name, long texts": Body(SCORE, 19 * MIB, b"{", b'"image": "%b", ' % (b"A" * 400), b'"image": ""}'),
    "a long number": Body(SCORE, 19 * MIB, b'{"seed": ', b"9", b"}"),
    "spaces": Body(SCORE, 19 * MIB, b"{", b" ", b"}"),
    "lists in lists": Body(SCORE, 19 * MIB, b"", b"[", b""),
    "objects in objects": Body(SCORE, 19 * MIB, b"", b'{"a":', b""),
    "a text without end": Body(SCORE, 19 * MIB, b'{"image": "', b"A", b""),
    "escapes": Body(SCORE, 19 * MIB, b'{"image": "', b"\\/", b'"}'),
    "long escapes": Body(SCORE, 19 * MIB, b'{"image": "', b"\\u00e9", b'"}'),
    "quotes": Body(SCORE, 19 * MIB, b'{"image": "', b'\\"', b'"}'),
    "a wrong escape": Body(SCORE, 19 * MIB, b'{"image": "', b"\\x", b'"}'),
    "no UTF-8": Body(SCORE, 19 * MIB, b'{"image": "', b"\xff", b'"}'),
    "four bytes a character": Body(SCORE, 19 * MIB, b'{"image": "\xf0\x9f\x98\x80', b"A", b'"}'),
    "no image": Body("/v1/compare", 19 * MIB, b'{"first": "", "second": "', b"A", b'"}'),
    "a batch of countless images": Body(BATCH, 127 * MIB, IMAGES, b'", "', b'"]}'),
    "a batch of countless large images": Body(BATCH, 127 * MIB, IMAGES, b'%b", "' % (b"A" * 1000), b'"]}'),
    "a batch of one endless image": Body(BATCH, 127 * MIB, IMAGES, b"A", b""),
    "a batch of lists": Body(BATCH, 127 * MIB, b'{"images": [', b"[], ", b"[]]}"),
    "a ranking of numbers": Body(RANK, 127 * MIB, b'{"images": [', b"1, ", b"1]}"),
    "prompts without end": Body(ROLLOUTS, 127 * MIB, b'{"images": {}, "prompts": [', b"{}, ", b"{}]}"),
    "wrong images": Body(ROLLOUTS, 127 * MIB, b'{"prompts": [], "images": {', b'"a": 1, ', b'"b": 1}}'),
    "pairs without end": Body(VOTES, 127 * MIB, b'{"images": {}, "pairs": [', b'["a", "b"], ', b"[]]}"),
    "names of adapters": Body("/internal/adapters", 127 * MIB, b'{"name": "', b"a", b'"}'),
    "benchmarks": Body("/internal/versions/x/benchmarks", 127 * MIB, b'{"benchmarks": {', b'"a": {}, ', b'"b": {}}}'),
}


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds of processor time for which each callback held an event loop; what there was is frozen, as it serves."""
    found: list[float] = []
    plain = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        begin = time.thread_time()
        plain(self)
        found.append(time.thread_time() - begin)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    gc.collect()
    gc.freeze()
    yield found
    gc.unfreeze()


def send(listening: Listening, body: Body) -> tuple[int, bytes]:
    """Sends a body part by part. Returns the answer's status and content."""
    internal = body.path.startswith("/internal")
    address = urlsplit(listening.operator_url if internal else listening.url)
    headers = {**JSON, "Content-Length": str(body.length), "Authorization": f"Bearer {KEY}"}
    method = "PUT" if body.path.endswith("benchmarks") else "POST"
    with closing(http.client.HTTPConnection(address.netloc, timeout=60)) as connection:
        connection.request(method, body.path, body.parts(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextmanager
def probed(listening: Listening) -> Iterator[list[int]]:
    """The statuses of liveness probes, one after another, until the block ends."""
    statuses: list[int] = []
    over = threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=listening.url, timeout=60) as client:
            while not over.is_set() or not statuses:
                statuses.append(client.get("/health/live").status_code)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_no_json_holds_the_loop(listening: Listening, holds: list[float], body: Body):
    with probed(listening) as statuses:
        status, content = send(listening, body)
    assert status == 422, content
    assert len(content) < 3000
    assert set(statuses) == {200}
    assert max(holds) < LONGEST_SECONDS


@pytest.mark.own_pace
@pytest.mark.parametrize("kind", ["unknown names", "spaces", "lists in lists", "prompts without end", "wrong images"])
def test_memory_does_not_grow_with_what_is_refused(listening: Listening, kind: str):
    assert peak_mib(lambda: send(listening, BODIES[kind])) < max(16, BODIES[kind].length / MIB / 3)


@pytest.mark.own_pace
def test_the_images_of_a_batch_take_memory_in_proportion(listening: Listening):
    image = base64.b64encode(bytes(MIB))
    body = Body(BATCH, 0, b'{"images": ["%b"]}' % b'", "'.join([image] * 20), b" ", b"")
    assert peak_mib(lambda: send(listening, body)) < 4 * body.length / MIB


def peak_mib(call: Callable[[], object]) -> float:
    """The most memory that a call took beside what there was before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


SIZES = [1, 2, 3, 7, 100, 10**6]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "text", [TEXT, "", "a", 'a"\\/\n\té😀', TEXT * 9 + '"\\\\\n' + TEXT * 1000, "\\" * 999, '"' * 1000]
)
def test_a_body_means_the_same_however_it_is_cut(size: int, text: str):
    for written in (json.dumps({"image": text, "seed": 3}), json.dumps({"image": text, "seed": 3}, indent=1)):
        body = written.replace("/", "\\/").encode()
        outline = Outline(512, MIB)
        for at in range(0, len(body), size):
            outline.feed(body[at : at + size])
        if not text:
            with pytest.raises(InvalidRequest, match="image: String should have at least 1"):
                outline.message(ScoreRequest)
        else:
            assert outline.message(ScoreRequest) == ScoreRequest(image=text, seed=3)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"image": "a", "image": "b"}', "given twice"),
        (b'{"image": "%b", "image": "%b"}' % (b"a" * 300, b"b" * 300), "given twice"),
        (b'{"image": "a", "%b": 1}' % (b"a" * 300), "Extra inputs"),
        (b'{"image": "a", "mode": "%b"}' % (b"a" * 300), "mode: Input should be"),
        (b'{"image": ["%b"]}' % (b"a" * 300), "image: Input should be a valid string"),
        (b'{"image": "a", "seed": 1} x', "Invalid JSON"),
        (b'{"image": "%b"} x' % (b"a" * 300), "Invalid JSON"),
        (b'{"image": "\\ud800"}', "Invalid JSON"),
        (b'{"image": "%b\x01"}' % (b"a" * 300), "Invalid JSON"),
        (b'{"image": "a\\', "Invalid JSON"),
        (b'{"image": "a\\u12"}', "Invalid JSON"),
    ],
)
def test_what_is_wrong_is_told(body: bytes, told: str):
    outline = Outline(512, MIB)
    with pytest.raises(InvalidRequest, match=told):
        outline.feed(body)
        outline.message(ScoreRequest)


@contextmanager
def half_sent(url: str, declared: int, sent: bytes, key: str = "", path: str = BATCH) -> Iterator[socket.socket]:
    """A connection that declares more than it sends, and waits."""
    address = urlsplit(url)
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {declared}\r\n"
    with socket.create_connection((address.hostname, address.port or 0), timeout=60) as connection:
        connection.sendall(f"{head}Authorization: Bearer {key}\r\n\r\n".encode() + sent)
        yield connection


def score(listening: Listening, key: str = "none") -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(listening.url + SCORE, json={"image": TEXT}, headers=headers, timeout=60).status_code


def keys_file(folder: Path, **rates: int | None) -> tuple[Path, list[str]]:
    file = folder / "keys.toml"
    return file, [add_key(file, name, rate, None) for name, rate in rates.items()]


def test_who_declares_much_and_sends_little_refuses_nobody(make_listening: Callable[..., Listening]):
    listening = make_listening(max_in_flight=2)
    with ExitStack() as slow:
        for _ in range(8):
            slow.enter_context(half_sent(listening.url, 128 * MIB, b"{"))
        assert [score(listening) for _ in range(20)] == [200] * 20


def test_who_sends_much_leaves_room_for_others(make_listening: Callable[..., Listening], tmp_path: Path):
    file, (greedy, other) = keys_file(tmp_path, greedy=None, other=None)
    listening = make_listening(keys_file=file, max_upload_bytes=MIB, max_batch_bytes=2 * MIB, max_bodies_mib=4)
    part = IMAGES + b"A" * (MIB - len(IMAGES) - 1000)
    with ExitStack() as slow:
        connections = [slow.enter_context(half_sent(listening.url, 2 * MIB, part, greedy)) for _ in range(3)]
        assert b" 503 " in first_answer(connections)
        assert [score(listening, other) for _ in range(20)] == [200] * 20
    while score(listening, greedy) != 200:  # until the service has noticed that they are gone
        pass


def first_answer(connections: Iterable[socket.socket]) -> bytes:
    """What the first of some connections to be answered is told."""
    readable, _, _ = select.select(connections, [], [], 60)
    return readable[0].recv(1000)


@pytest.mark.parametrize("path", [SCORE, BATCH, RANK])
def test_a_key_whose_rate_is_used_up_is_told_before_its_body_is_read(
    make_listening: Callable[..., Listening], tmp_path: Path, path: str
):
    file, (key,) = keys_file(tmp_path, one=1)
    listening = make_listening(keys_file=file)
    assert score(listening, key) == 200
    with half_sent(listening.url, 20 * MIB, b"", key, path) as connection:
        assert b" 429 " in connection.recv(1000)


@pytest.mark.parametrize("path", [SCORE, BATCH, RANK])
def test_a_body_that_cannot_be_read_is_charged_too(make_listening: Callable[..., Listening], tmp_path: Path, path: str):
    file, (key,) = keys_file(tmp_path, one=2)
    listening = make_listening(keys_file=file)
    headers = {**JSON, "Authorization": f"Bearer {key}"}
    statuses = [httpx.post(listening.url + path, content=b"{", headers=headers).status_code for _ in range(3)]
    assert statuses == [422, 422, 429]


@pytest.mark.parametrize("heads", [b"X: %b\r\n" % (b"y" * 60_000), b"a:b\r\n" * 8000], ids=["long", "many"])
@pytest.mark.parametrize("query", ["x" * 30_000, "a&" * 15_000, "a=b&" * 8000], ids=["long", "names", "values"])
def test_long_heads_do_not_hold_the_loop(listening: Listening, holds: list[float], heads: bytes, query: str):
    address = urlsplit(listening.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=60) as connection:
        connection.sendall(b"POST /v1/score?%b HTTP/1.1\r\nHost: t\r\n%b\r\n" % (query.encode(), heads))
        assert connection.recv(20).startswith(b"HTTP/1.1 4")
    assert max(holds) < LONGEST_SECONDS


FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FORMS = {
    "fields": (b"", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'),
    "files": (b"", FORM + b"x\r\n"),
    "heads of a part": (b"--b\r\n", b"X: y\r\n"),
    "a long head": (b"--b\r\nX: ", b"x"),
    "no boundary": (b"", b"x"),
    "empty lines": (b"", b"\r\n"),
    "almost boundaries": (FORM, b"\r\n--"),
    "ends of lines": (FORM, b"\r"),
    "after the end": (FORM + b"x\r\n--b--\r\n", b"\r\n"),
}


@pytest.mark.parametrize(("begin", "middle"), FORMS.values(), ids=FORMS.keys())
def test_no_form_holds_the_loop(listening: Listening, holds: list[float], begin: bytes, middle: bytes):
    content = begin + middle * (8 * MIB // len(middle))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = httpx.post(listening.url + SCORE, content=content, headers=headers, timeout=60)
    assert 400 <= answer.status_code < 500
    assert max(holds) < LONGEST_SECONDS


def test_long_answers_do_not_hold_the_loop(make_listening: Callable[..., Listening], holds: list[float]):
    """64 images with 64 long texts each, and 20,000 rollouts."""
    listening = make_listening(max_num_seqs=64, profile="evoquality")
    said = "because " * 128
    listening.world.engine.answer = lambda prompt, sampling, index: said
    asked = {"images": [base64.b64encode(picture(shade)).decode() for shade in range(64)]}
    batch = httpx.post(listening.url + BATCH, json={**asked, "samples": 64, "reasoning": True}, timeout=60).json()
    assert [item["result"]["answers"] for item in batch["results"]] == [[said] * 64] * 64
    assert batch["version"] == listening.world.first
    prompts = [{"task": "score", "images": ["a"], "samples": 64}] * 320
    with listening.operators as operators:
        answer = operators.post(ROLLOUTS, json={"images": {"a": TEXT}, "prompts": prompts}, timeout=60).json()
    assert sum(len(result["completions"]) for result in answer["results"]) == 20_480
    assert (answer["version"], answer["adapter"]) == (listening.world.first, None)
    assert max(holds) < LONGEST_SECONDS


def test_a_slash_too_many_is_nothing_and_leads_nowhere(make_world: Callable[..., World], run, tmp_path: Path):
    file, _ = keys_file(tmp_path, one=None)
    world = make_world(keys_file=file)

    async def story() -> None:
        async with world.public() as public, world.operators(key=None) as operators:
            for client, app in ((public, world.public_app), (operators, world.operator_app)):
                for path in app.openapi()["paths"]:
                    for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
                        answer = await client.request(method, path.format(version="x", name="x") + "/")
                        assert (answer.status_code, "location" in answer.headers) == (404, False), path

    run(story())


LARGE = {
    "one image": Body(SCORE, 19 * MIB, b'{"image": "', b"A", b'"}'),
    "one image far too large": Body(BATCH, 126 * MIB, IMAGES, b"A", b'"]}'),
    "many images": Body(BATCH, 0, IMAGES + b'", "'.join([b"A" * (2 * MIB - 4)] * 63), b"A", b'"]}'),
    "two images": Body("/v1/compare", 9 * MIB, b'{"first": "%b", "second": "' % (b"A" * 9 * MIB), b"A", b'"}'),
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE.keys())
def test_no_large_image_holds_the_loop(listening: Listening, holds: list[float], body: Body):
    with probed(listening) as statuses:
        status, content = send(listening, body)
    assert b"invalid_image" in content, status
    assert set(statuses) == {200}
    assert max(holds) < LONGEST_SECONDS
