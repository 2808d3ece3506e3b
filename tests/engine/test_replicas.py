"""Three replicas behind HAProxy follow the store's pointer under traffic: nothing failed, nothing mixed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.replicas.fleet import NAMES, installed
from tests.benchmarks.replicas.scenario import Scenario
from trainer.progress import Stages

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(installed() is None, reason="HAProxy is not installed: apt-get install haproxy"),
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The findings of `make replicas`, with turns of three seconds."""
    return Scenario(
        tmp_path_factory.mktemp("replicas"), follow_seconds=0.5, spread_seconds=3, stages=Stages()
    ).run_all()


def test_no_request_fails_and_nothing_is_sent_twice(figures: dict[str, Any]) -> None:
    assert figures["traffic"]["failures"] == []
    assert figures["traffic"]["failed"] == 0 < 100 < figures["traffic"]["requests"]
    counted = figures["balancer"]
    assert counted["answers_5xx"] == counted["answers_4xx"] == counted["answers_broken"] == 0
    assert counted["connections_failed"] == counted["retries"] == counted["redispatches"] == 0


def test_no_answer_is_of_two_versions_and_the_questions_would_tell(figures: dict[str, Any]) -> None:
    assert figures["traffic"]["mixed"] == 0
    assert figures["traffic"]["distinguishable"] > 0.9


def test_every_replica_follows_three_promotions_and_a_rollback_and_answers_by_each(figures: dict[str, Any]) -> None:
    first, second, third, back = figures["changes"]
    assert [change["kind"] for change in (first, second, third, back)] == ["promotion"] * 3 + ["rollback"]
    assert back["version"] == second["version"]
    for change in figures["changes"]:
        assert set(change["seconds"]) == set(change["blackout_seconds"]) == set(NAMES)
        assert change["old_answers_after_all_serve"] == 0
        assert all(change["version"] in answered for answered in figures["traffic"]["by_replica"].values())
    assert set(figures["traffic"]["by_replica"]) == set(NAMES)


def test_a_damaged_version_makes_all_not_ready_and_the_one_before_answers_on(figures: dict[str, Any]) -> None:
    found = figures["unloadable"]
    assert found["refused_by_the_command"]
    assert set(found["not_ready_seconds"]) == set(found["ready_again_seconds"]) == set(NAMES)
    assert found["requests_with_no_replica_ready"] > 0 == found["failed"] == found["by_another_version"]
