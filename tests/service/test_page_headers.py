"""The page's files and what its address lets a browser do."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from pydantic import ValidationError

from service.configuration.settings import Settings
from tests.service.conftest import World
from tests.service.test_http import ask as ask_publicly
from tests.service.test_http import assert_problem
from tests.service.test_operators import ask

OURS, LOCAL, FOREIGN = "https://iqa.example.com", "http://localhost:8000", "https://evil.example"


def policy(response: httpx.Response) -> dict[str, list[str]]:
    parts = (part.split() for part in response.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in parts}


def test_the_page_runs_its_own_scripts_alone(world: World, run):
    rules = policy(ask_publicly(world, run, "GET", "/"))
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == ["'self'"]
    assert "http://test:8001" in rules["connect-src"]


def test_the_operators_address_can_be_set(make_world: Callable[..., World], run):
    answer = ask_publicly(make_world(page_operator_url=OURS), run, "GET", "/")
    assert OURS in policy(answer)["connect-src"]
    assert f'data-operators="{OURS}"' in answer.text


@pytest.mark.parametrize("host", ["a; script-src *", "a'b", '"><script>', "[::1", ""])
def test_a_strange_host_gets_no_say(world: World, run, host: str):
    answer = ask_publicly(world, run, "GET", "/", headers={"Host": host})
    assert policy(answer)["connect-src"][-1] == "http://localhost:8001"
    assert policy(answer)["script-src"] == ["'self'"]


def test_its_files_are_served_and_nothing_else(world: World, run):
    script = ask_publicly(world, run, "GET", "/web/main.js")
    assert "javascript" in script.headers["content-type"]
    assert script.headers["x-content-type-options"] == "nosniff"
    again = ask_publicly(world, run, "GET", "/web/main.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    for path in ("/web/nothing.js", "/web/..%2fapp.py", "/web/%2e%2e%2fapp.py"):
        assert_problem(ask_publicly(world, run, "GET", path), 404, "not_found")


def preflight(world: World, run, origin: str, path: str = "/internal/rollback", method: str = "POST") -> httpx.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    return ask(world, run, "OPTIONS", path, None, headers=asked)


def test_pages_of_this_machine_may_swap_unless_others_are_named(make_world: Callable[..., World], run):
    world = make_world()
    for path in ("/internal/rollback", f"/internal/versions/{world.second}/promote"):
        assert preflight(world, run, LOCAL, path).headers["access-control-allow-origin"] == LOCAL
    for origin in (OURS, FOREIGN, "http://localhost.evil.example", "null"):
        assert "access-control-allow-origin" not in preflight(world, run, origin).headers


def test_only_named_origins_may_swap(make_world: Callable[..., World], run):
    world = make_world(operator_origins=[OURS])
    assert preflight(world, run, OURS).headers["access-control-allow-origin"] == OURS
    for origin in (LOCAL, FOREIGN):
        assert "access-control-allow-origin" not in preflight(world, run, origin).headers


def test_pages_may_do_nothing_but_swap(world: World, run):
    refused = preflight(world, run, LOCAL, "/internal/rollback", "DELETE")
    assert refused.status_code == 400
    for path in ("/internal/rollouts", "/internal/adapters", f"/internal/versions/{world.first}/benchmarks"):
        assert "access-control-allow-origin" not in preflight(world, run, LOCAL, path).headers


def test_a_page_learns_why_it_was_refused(world: World, run):
    answer = ask(world, run, "POST", "/internal/rollback", "wrong", headers={"Origin": LOCAL})
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["access-control-allow-origin"] == LOCAL


@pytest.mark.parametrize("wrong", ["*", "iqa.example.com", "https://a/b c", "https://a; script-src *"])
def test_an_origin_that_is_none_stops_the_start(wrong: str):
    with pytest.raises(ValidationError):
        Settings(operator_origins=[wrong])
    with pytest.raises(ValidationError):
        Settings(page_operator_url=wrong)
