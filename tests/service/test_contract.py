"""Clients and services of different versions: answers grow, requests stay strict, and what cannot be read is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from evoquality import Client, ServiceError, __version__, calls, encode_image
from evoquality.contract import (
    Benchmark,
    BenchmarksRequest,
    CompareOptions,
    ExactVotesRequest,
    RankOptions,
    RolloutPrompt,
    RolloutRequest,
    ScoreOptions,
)
from service.versions.store import VersionStore
from tests.service.conftest import KEY, Listening, World, adapter, picture
from tests.service.gateway import gateway
from tests.service.test_cli import evoquality

FIRST_RELEASE = Path(__file__).with_name("answers-0.1.json")
"""The answers that the client of 0.1 reads, as JSON schemas. It is never written again."""
ASK: dict[str, Callable[[Client], Any]] = {
    "/v1/score": lambda client: client.score(picture(200), ScoreOptions(distribution=True)),
    "/v1/compare": lambda client: client.compare(picture(10), picture(200), CompareOptions(samples=4, reasoning=True)),
    "/v1/rank": lambda client: client.rank([picture(10), picture(200)], RankOptions(samples=2)),
    "/v1/score/batch": lambda client: client.score_batch([picture(10), b"no image"]),
    "/v1/info": lambda client: client.info(),
    "/v1/versions": lambda client: client.versions(),
    "/health/ready": lambda client: client.ready(),
}
PROMPTS = {"images": {"a": encode_image(picture(1))}, "prompts": [RolloutPrompt(task="score", images=["a"], samples=2)]}
PAIRS = {"images": {"a": encode_image(picture(1)), "b": encode_image(picture(2))}, "pairs": [("a", "b")]}
OPERATE: dict[str, Callable[..., Any]] = {
    "/internal/rollouts": lambda client, _: client.rollouts(RolloutRequest(**PROMPTS)),
    "/internal/exact-votes": lambda client, _: client.exact_votes(ExactVotesRequest(**PAIRS)),
    "/internal/adapters": lambda client, _: client.load_adapter("one"),
    "/internal/versions/{}/promote": lambda client, world: client.promote(world.second),
    "/internal/rollback": lambda client, _: client.rollback(),
}
IN_ONE_PIECE: dict[str, Callable[..., Any]] = {
    **OPERATE,
    "/internal/rollouts": lambda client, _: client.send(calls.rollouts(RolloutRequest(**PROMPTS))),
    "/internal/exact-votes": lambda client, _: client.send(calls.exact_votes(ExactVotesRequest(**PAIRS))),
    "/internal/versions/{}/promote": lambda client, world: client.send(in_one_piece(calls.promote(world.second))),
    "/internal/rollback": lambda client, _: client.send(in_one_piece(calls.rollback())),
}
"""As the client of 0.1 asks, which knows no answers line by line."""
FREE = {"metrics", "benchmarks", "files", "config"}
"""Fields whose keys are names."""


def in_one_piece(call: calls.Call[Any]) -> calls.Call[Any]:
    return replace(call, alive=False)


def grown(answer: Any, inside: str = "") -> Any:
    """An answer with an unknown field in every object, as a newer service may give it."""
    if isinstance(answer, list):
        return [grown(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    new = {} if inside in FREE else {"new": {"deep": [1]}}
    return {**{name: grown(value, name) for name, value in answer.items()}, **new}


def all_grown(path: str, body: bytes) -> bytes:
    return b"".join(json.dumps(grown(json.loads(line))).encode() + b"\n" for line in body.splitlines())


def test_todays_client_reads_answers_with_new_fields_at_every_level(listening: Listening):
    world = listening.world
    measured = BenchmarksRequest(benchmarks={"koniq": Benchmark(n=9, plcc=0.5, srcc=0.5)})
    world.store.record_benchmarks(world.first, measured)
    adapter(world.store.root / "adapters" / "one")
    with gateway(listening.url) as public, gateway(listening.operator_url) as operators:
        public.change = operators.change = all_grown
        with Client(public.url) as newer, Client(listening.url) as client, Client(operators.url, KEY) as operator:
            for path, ask in ASK.items():
                assert without_ids(ask(newer)) == without_ids(ask(client)), path
            assert len(list(newer.score_stream([picture(10), b"no image"]))) == 2
            for operate in OPERATE.values():
                operate(operator, world)
            assert newer.versions().versions[0].benchmarks["koniq"].n == 9
            with pytest.raises(ServiceError) as refused:
                newer.score(b"no image")
            assert refused.value.problem.code == "invalid_image"


def without_ids(answer: Any) -> Any:
    """An answer as JSON, without what is new in every request."""
    text = answer.model_dump(mode="json")
    for item in text.get("results", ()):
        if item["problem"]:
            item["problem"]["request_id"] = ""
    return text


def test_the_client_of_the_first_release_reads_todays_answers(listening: Listening):
    known = json.loads(FIRST_RELEASE.read_text())
    seen = {}
    adapter(listening.world.store.root / "adapters" / "one")
    with gateway(listening.url) as public, gateway(listening.operator_url) as operators:
        public.change = operators.change = lambda path, body: seen.update({path: body}) or body
        with Client(public.url) as client, Client(operators.url, KEY) as operator:
            for ask in ASK.values():
                ask(client)
            for operate in IN_ONE_PIECE.values():
                operate(operator, listening.world)
    seen = {path.replace(listening.world.second, "{}"): body for path, body in seen.items()}
    assert known.keys() == seen.keys()
    for path, body in seen.items():
        jsonschema.validate(json.loads(body), known[path])


@pytest.mark.parametrize("call", [calls.info(), calls.versions(), calls.ready()], ids=lambda call: call.path)
def test_an_answer_that_cannot_be_read_is_said_with_route_field_and_versions(call: calls.Call, listening: Listening):
    with gateway(listening.url) as between:
        between.change = lambda path, body: json.dumps(dict.fromkeys(json.loads(body))).encode()
        with Client(between.url) as client, pytest.raises(ServiceError) as refused:
            client.send(call)
        assert refused.value.problem.code == "unreadable_answer"
        field = next(iter(TypeAdapter(call.answer).json_schema()["properties"]))
        said = str(refused.value)
        assert f"GET {call.path}: {field} is" in said
        assert f"client has version {__version__}, the service {__version__}: install" in said
        assert "pydantic" not in said and "validation error" not in said
        if call.path == "/v1/info":
            told = evoquality("info", url=between.url)
            assert (told.exit_code, "install the same on both sides" in told.stderr) == (2, True)


def test_a_line_of_a_stream_that_cannot_be_read_is_said(listening: Listening):
    with gateway(listening.url) as between, Client(between.url) as client:
        between.change = lambda path, body: body.replace(b'"mode":"expected"', b'"mode":"intuition"')
        with pytest.raises(ServiceError, match=r"POST /v1/score/batch: result\.mode is"):
            list(client.score_stream([picture(10)]))


@pytest.mark.parametrize("path", ["/internal/rollouts", "/internal/exact-votes", "/internal/adapters", "benchmarks"])
def test_requests_forbid_unknown_fields_at_every_level(path: str, listening: Listening):
    first = listening.world.first
    bodies = {
        "/internal/rollouts": RolloutRequest(**PROMPTS).model_dump(),
        "/internal/exact-votes": ExactVotesRequest(**PAIRS).model_dump(),
        "/internal/adapters": {"name": "one"},
        "benchmarks": {"benchmarks": {"koniq": {"n": 9, "plcc": 0.5, "srcc": 0.5}}},
    }
    method = "PUT" if path == "benchmarks" else "POST"
    url = f"/internal/versions/{first}/benchmarks" if path == "benchmarks" else path
    body = bodies[path]
    places = [body, *body.get("prompts", ()), *body.get("benchmarks", {}).values()]
    with listening.operators as operators:
        for place in places:
            place["sampels"] = 3
            refused = operators.request(method, url, json=body)
            assert (refused.status_code, "sampels" in refused.json()["detail"]) == (422, True)
            del place["sampels"]
    with pytest.raises(ValidationError):
        ScoreOptions.model_validate({"sampels": 3})


def test_what_newer_versions_wrote_into_a_store_is_read_and_not_lost(world: World):
    root = world.store.root
    for file in (root / "versions" / world.first / "manifest.json", root / "ACTIVE"):
        file.write_text(json.dumps(grown(json.loads(file.read_text()))))
    world.store.record_benchmarks(world.first, BenchmarksRequest(benchmarks={}))
    file = root / "benchmarks" / f"{world.first}.json"
    file.write_text(json.dumps({"new": 1, "benchmarks": {"koniq": {"n": 9, "plcc": 0.5, "srcc": 0.5, "new": 1}}}))
    (root / "adapters.json").write_text(json.dumps({"last_id": 4, "used": {"old": 4}, "new": {"deep": 1}}))
    store = VersionStore(root)
    assert store.active().version == world.first
    assert store.info(world.first).id == world.first
    (listed,) = [one for one in store.listed() if one.id == world.first]
    assert listed.benchmarks["koniq"].n == 9
    assert store.new_adapter_id("other") == 5
    assert json.loads((root / "adapters.json").read_text())["new"] == {"deep": 1}
