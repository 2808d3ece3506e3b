"""Long answers to the trainer, line by line: as they are ready, with signs of life, and kept when the rest is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest

from evoquality import Client, ServiceError, calls, encode_image
from evoquality.contract import ExactVotesRequest, RolloutPrompt, RolloutRequest
from evoquality.lines import NDJSON, Line
from service.api import lines as api
from service.api.lines import Lines
from service.engine.protocol import Prompt, Sampling
from service.errors import EngineFailure
from tests.service.conftest import KEY, Listening, World, picture
from tests.service.fake_engine import plain_answer
from tests.service.test_http import assert_problem
from tests.service.test_operators import ask

LINES = {"Accept": NDJSON}
IMAGES = {str(n): encode_image(picture(10 + 20 * n)) for n in range(4)}
PROMPTS = [RolloutPrompt(task="score", images=[name], samples=1) for name in IMAGES]
ROLLOUTS = RolloutRequest(images=IMAGES, prompts=PROMPTS)
VOTES = ExactVotesRequest(images=IMAGES, pairs=[("0", "1"), ("3", "2"), ("1", "3")])
SCORES = [round(1 + 4 * (10 + 20 * n) / 255, 2) for n in range(4)]


class Gate(asyncio.Event):
    """Holds a fake engine's answers, but the first few; unlike its base, any thread opens it."""

    def __init__(self, passing: int = 0) -> None:
        super().__init__()
        self._open = threading.Event()
        self._passing = passing

    def set(self) -> None:
        self._open.set()

    async def wait(self) -> Literal[True]:
        self._passing = passes = self._passing - 1
        while passes < 0 and not self._open.is_set():
            await asyncio.sleep(0.005)
        return True


@pytest.fixture
def operators(listening: Listening) -> Iterator[Client]:
    with Client(listening.operator_url, KEY) as client:
        yield client


def told(world: World, run, body: RolloutRequest | ExactVotesRequest, path: str) -> list[Line[Any]]:
    response = ask(world, run, "POST", path, content=body.model_dump_json(), headers=LINES)
    assert response.headers["content-type"].startswith(NDJSON)
    return [Line.model_validate_json(line) for line in response.text.splitlines()]


def test_lines_hold_what_the_whole_answer_holds(world: World, run):
    for path, body, items in (("/internal/rollouts", ROLLOUTS, 4), ("/internal/exact-votes", VOTES, 3)):
        whole = ask(world, run, "POST", path, content=body.model_dump_json()).json()["results"]
        alive, *lines = told(world, run, body, path)
        assert (alive.index, alive.result, alive.problem) == (None, None, None)
        assert sorted(line.index for line in lines) == list(range(items))
        assert [one.result for one in sorted(lines, key=lambda line: line.index or 0)] == whole
        assert {line.version for line in lines} == {world.first}


def test_both_clients_put_the_lines_together(operators: Client):
    results = operators.rollouts(ROLLOUTS).results
    assert [float(result.completions[0].text) for result in results] == SCORES
    votes = operators.exact_votes(VOTES).results
    assert [vote.forward.first > vote.forward.second for vote in votes] == [False, True, False]


@pytest.mark.parametrize(("changes", "status", "code"), [
    ({"version": "v0123456789ab"}, 409, "version_conflict"),
    ({"adapter": "nobody"}, 404, "unknown_adapter"),
    ({"images": {"0": encode_image(b"no image")}, "prompts": PROMPTS[:1]}, 422, "invalid_image"),
    ({"images": {}}, 422, "invalid_request"),
])  # fmt: skip
def test_what_is_refused_at_once_has_its_status(world: World, run, changes: dict[str, Any], status: int, code: str):
    body = ROLLOUTS.model_copy(update=changes).model_dump_json()
    assert_problem(ask(world, run, "POST", "/internal/rollouts", content=body, headers=LINES), status, code)


def test_a_late_failure_is_the_last_line_behind_the_results(world: World, run):
    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        if len(world.engine.asked) == 4:
            raise EngineFailure("no")
        return plain_answer(prompt, sampling, index)

    world.engine.answer = answer
    traffic = world.service.rollouts._traffic
    traffic._beside_users = 1
    with traffic.user():  # one at a time
        *lines, last = told(world, run, ROLLOUTS, "/internal/rollouts")
    assert [line.index for line in lines] == [None, 0, 1, 2]
    assert (last.problem.code, last.problem.status, last.index) == ("engine_failure", 503, None)


def test_while_nothing_is_ready_there_are_signs_of_life(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 0.01)

    async def story() -> list[Line[Any]]:
        ready = asyncio.Event()

        async def work(lines: Lines[str]) -> None:
            lines.begun("v1")
            await ready.wait()
            lines.finished(0, "found")

        request = SimpleNamespace()
        async with Lines(request, work) as lines:
            sent: AsyncIterator[str] = (await lines.response()).body_iterator
            silent: list[Line[Any]] = [Line.model_validate_json(await anext(sent)) for _ in range(4)]
            ready.set()
            return [*silent, *[Line.model_validate_json(text) async for text in sent]]

    lines = run(story())
    assert [line.index for line in lines if line.index is not None] == [0]
    assert len(lines) >= 5 and lines[-1].result == "found"


def test_an_answer_may_take_longer_than_a_client_bears_silence(
    operators: Client, listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 0.02)
    listening.world.engine.held = gate = Gate()
    signs = 0
    for line in operators._lines(calls.rollouts(ROLLOUTS)):
        signs += line.index is None
        if signs == 5:
            gate.set()
    assert signs >= 5
    listening.world.engine.held = Gate()
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 60)
    with Client(listening.operator_url, KEY, timeout_s=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.rollouts(ROLLOUTS)
    while listening.world.engine.running:  # what nobody waits for is not computed
        pass


def test_a_client_asks_again_only_for_what_a_broken_answer_did_not_bring(
    operators: Client, listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    breaks = cut_after(2, monkeypatch)
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0)
    results = operators.rollouts(ROLLOUTS).results
    assert [float(result.completions[0].text) for result in results] == SCORES
    assert breaks == [1]
    assert len(listening.world.engine.asked) == 4 + 3


def cut_after(lines: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Breaks the first answer behind so many lines; the list gets an entry then."""
    sent = Lines._sent
    breaks: list[int] = []

    async def cut(self: Lines[Any], line: Line[Any] | None) -> AsyncIterator[str]:
        begun = 0
        async for text in sent(self, line):
            yield text
            begun += 1
            if begun == lines and not breaks:
                breaks.append(1)
                raise ConnectionError("cut")

    monkeypatch.setattr(Lines, "_sent", cut)
    return breaks


def test_a_swap_waits_for_no_line_and_keeps_those_that_came(make_listening: Callable[..., Listening]):
    service = make_listening(sequences_beside_users=1)
    world = service.world
    world.engine.held = gate = Gate(passing=1)
    found: list[Line[Any]] = []
    with (
        world.service.rollouts._traffic.user(),  # one prompt at a time
        Client(service.operator_url, KEY) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        for line in client._lines(calls.rollouts(ROLLOUTS)):
            found.append(line)
            if line.index == 0:
                swap = beside.submit(client.promote, world.second)
            if line.problem:
                gate.set()
        assert swap.result().version == world.second
    assert [line.index for line in found[:-1]] == [None, 0]
    assert found[-1].problem.code == "swapping"


def test_without_log_probabilities_nobody_computes_or_sends_them(world: World, run):
    body = ROLLOUTS.model_copy(update={"logprobs": False})
    results = ask(world, run, "POST", "/internal/rollouts", content=body.model_dump_json()).json()["results"]
    assert all(result["prompt_token_ids"] == result["completions"][0]["logprobs"] == [] for result in results)
    assert not any(sampling.logprobs for _, sampling, *_ in world.engine.asked)
    ask(world, run, "POST", "/internal/rollouts", content=ROLLOUTS.model_dump_json())
    assert all(sampling.logprobs for _, sampling, *_ in world.engine.asked[4:])


def test_info_names_the_places_of_the_engine(make_world: Callable[..., World], run):
    assert ask(make_world(max_num_seqs=7), run, "GET", "/v1/info").json()["max_num_seqs"] == 7


@pytest.mark.parametrize("swap", ["promote", "rollback"])
def test_a_swap_may_take_longer_than_a_client_bears_silence(
    listening: Listening, swap: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 0.02)
    world = listening.world
    target = {"promote": world.second, "rollback": world.first}[swap]
    with Client(listening.operator_url, KEY) as client:
        client.promote(world.second) if swap == "rollback" else None
        gate, reload = Gate(), world.engine.reload

        async def slow(weights: Path, version: str) -> None:
            await gate.wait()
            await reload(weights, version)

        monkeypatch.setattr(world.engine, "reload", slow)
        signs = 0
        for line in client._lines(calls.promote(world.second) if swap == "promote" else calls.rollback()):
            signs += line.result is None
            if signs == 5:
                gate.set()
        assert line.result.version == target == world.service.swap_lock.version.id


def test_a_swap_that_is_refused_late_is_refused_all_the_same(listening: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 0.0001)
    listening.world.engine.bad_weights = {listening.world.second}
    with Client(listening.operator_url, KEY) as client, pytest.raises(ServiceError, match="load_failed") as refused:
        client.promote(listening.world.second)
    assert refused.value.problem.status == 422
