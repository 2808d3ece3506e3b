"""Replicas that follow the pointer of a store, over HTTP: in turn, to the last version it names, or not ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tenacity import RetryCallState, wait_fixed

from service.api.service import create_service
from service.configuration.settings import Settings
from service.errors import UserError
from service.observability import metrics
from service.versions import follower as module
from service.versions.first import first_version
from service.versions.store import VersionStore
from tests.service.conftest import KEY, Listening, World, adapter, checkpoint, picture, served
from tests.service.fake_engine import FakeEngine
from tests.service.test_http import assert_problem
from tests.service.test_operators import BATCH

FOREVER = 300.0


class Recording(FakeEngine):
    """Remembers which versions it loaded, and in which order with others."""

    loads: list[tuple[int, str]]

    async def reload(self, weights: Path, version: str) -> None:
        await super().reload(weights, version)
        self.loads.append((threading.get_ident(), version))


@pytest.fixture
def loads() -> list[tuple[int, str]]:
    """The versions that all engines of a test loaded, by their threads."""
    return []


@pytest.fixture
def start(store: VersionStore, loads, tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """Starts replicas that follow the store, as the service itself would start."""
    with ExitStack() as stack:

        def start(**more: object) -> Listening:
            chosen = {"follow_seconds": 0.05, "follow_spread_seconds": 0.0, **more}
            settings = Settings(store=store.root, state=tmp_path / "state", follow=True, **chosen)
            own = VersionStore(store.root, settings.state)
            version = first_version(own, settings)
            engine = Recording(version.id)
            engine.loads = loads
            service = create_service(settings, KEY, engine, own, version)
            return stack.enter_context(served(World(service, engine, own, version.id, "", settings)))

        yield start


def ready(replica: Listening) -> httpx.Response:
    return httpx.get(f"{replica.url}/health/ready")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def until_ready_with(replica: Listening, version: str) -> None:
    until(lambda: ready(replica).json().get("version") == version)


def until_not_following(replica: Listening) -> str:
    """Waits until the replica says that it cannot follow; returns why."""
    until(lambda: ready(replica).status_code == 503)
    assert_problem(ready(replica), 503, "not_following")
    return ready(replica).json()["detail"]


def answering(replica: Listening) -> str:
    """The version that answers."""
    return httpx.post(f"{replica.url}/v1/score", files={"image": picture()}).json()["version"]


def operate(replica: Listening, method: str, path: str, **request) -> httpx.Response:
    with replica.operators as operators:
        return operators.request(method, f"/internal{path}", **request)


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_replicas_swap_to_where_the_pointer_leads(start, store, versions):
    replicas = [start(), start()]
    assert [answering(replica) for replica in replicas] == [versions[0]] * 2
    store.activate(versions[1])
    for replica in replicas:
        until_ready_with(replica, versions[1])
        assert answering(replica) == versions[1]
    store.rollback()
    for replica in replicas:
        until_ready_with(replica, versions[0])


def test_each_replica_waits_for_a_random_part_of_the_spread(start, store, versions, loads, monkeypatch):
    parts = iter([1.0, 0.0, 0.5])
    drawn: dict[int, float] = {}

    def uniform(low: float, high: float) -> float:
        assert (low, high) == (0.0, 1.0)
        return drawn.setdefault(threading.get_ident(), next(parts))

    monkeypatch.setattr(module.random, "uniform", uniform)
    replicas = [start(follow_spread_seconds=1.0) for _ in range(3)]
    store.activate(versions[1])
    for replica in replicas:
        until_ready_with(replica, versions[1])
    assert [drawn[thread] for thread, _ in loads] == [0.0, 0.5, 1.0]


def test_a_replica_that_waits_for_its_turn_answers_on_and_is_ready(start, store, versions):
    replica = start(follow_spread_seconds=FOREVER)
    store.activate(versions[1])
    until(lambda: metrics.behind_seconds.collect()[0].samples[0].value > 0)
    assert (ready(replica).status_code, answering(replica)) == (200, versions[0])


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_answering_and_the_replica_not_ready(start, store, versions):
    replica = start()
    replica.world.engine.bad_weights = {versions[1]}
    store.activate(versions[1])
    assert "load_failed: the engine could not load the weights" in until_not_following(replica)
    assert answering(replica) == versions[0]
    assert metrics.behind_seconds.collect()[0].samples[0].value > 0
    store.rollback()
    until_ready_with(replica, versions[0])
    until(lambda: metrics.behind_seconds.collect()[0].samples[0].value == 0)


def test_a_version_is_followed_once_it_may_and_can_be_loaded(start, store, versions):
    replica = start()
    store.refuse(versions[1], "it agrees with 40 % of the votes")
    store.activate(versions[1])
    assert "40 % of the votes" in until_not_following(replica)
    (store.root / "refused" / f"{versions[1]}.json").unlink()
    until_ready_with(replica, versions[1])


def test_a_pointer_that_moves_between_two_attempts_is_followed(start, store, versions, tmp_path, monkeypatch):
    third = store.add(checkpoint(tmp_path / "third", 3), parent=None, profile="plain", origin="test").id
    monkeypatch.setattr(module, "wait_random_exponential", lambda **_: wait_fixed(FOREVER))
    replica = start()
    replica.world.engine.bad_weights = {versions[1]}
    store.activate(versions[1])
    until_not_following(replica)
    store.activate(third)
    until_ready_with(replica, third)


@pytest.mark.parametrize(("lasted", "paused"), [(1.0, 0.0), (5.0, 4.0), (100.0, 1.0)])
def test_pauses_make_up_tenfold_for_attempts_since_each_may_keep_users_waiting(lasted: float, paused: float):
    attempt = RetryCallState(None, None, (), {})
    attempt.start_time, attempt.outcome_timestamp, attempt.idle_for = 0.0, lasted, paused
    pause = module._sparing(attempt)
    assert paused + pause >= 10 * (lasted - paused)


def test_files_may_come_a_moment_after_the_pointer(start, store, versions, tmp_path):
    replica = start()
    store.path(versions[1]).rename(tmp_path / "elsewhere")
    write_pointer(store, f'{{"version": "{versions[1]}"}}')
    until(lambda: metrics.behind_seconds.collect()[0].samples[0].value > 0)
    assert ready(replica).status_code == 200
    (tmp_path / "elsewhere").rename(store.path(versions[1]))
    until_ready_with(replica, versions[1])


def test_files_that_do_not_come_are_told(start, store, versions, monkeypatch):
    monkeypatch.setattr(module, "_VISIBLE_SECONDS", 0.0)
    replica = start()
    write_pointer(store, '{"version": "v0123456789ab"}')
    assert "no such version" in until_not_following(replica)


def write_pointer(store: VersionStore, text: str) -> None:
    (store.root / "new").write_text(text)
    (store.root / "new").rename(store.root / "ACTIVE")


@pytest.mark.parametrize("broken", ["{", None])
def test_a_pointer_that_cannot_be_read_leads_where_it_led_and_is_late(start, store, versions, broken):
    replica = start()
    write_pointer(store, broken) if broken else (store.root / "ACTIVE").unlink()
    until(lambda: metrics.behind_seconds.collect()[0].samples[0].value > 0)
    assert (ready(replica).status_code, answering(replica)) == (200, versions[0])
    write_pointer(store, f'{{"version": "{versions[1]}"}}')
    until_ready_with(replica, versions[1])


def test_a_pointer_that_moves_on_is_followed_to_the_last_version_alone(start, store, versions, loads, tmp_path):
    third = store.add(checkpoint(tmp_path / "third", 3), parent=None, profile="plain", origin="test").id
    replica = start(follow_spread_seconds=FOREVER)
    store.activate(versions[1])
    until(lambda: replica.world.service.follower._named == versions[1])
    replica.world.settings.follow_spread_seconds = 0.0
    store.activate(third)
    until_ready_with(replica, third)
    assert [version for _, version in loads] == [third]


def test_a_pointer_that_comes_back_before_the_turn_costs_no_swap(start, store, versions, loads):
    replica = start(follow_spread_seconds=FOREVER)
    store.activate(versions[1])
    until(lambda: replica.world.service.follower._named == versions[1])
    store.rollback()
    until(lambda: replica.world.service.follower._named == versions[0])
    assert loads == []
    assert ready(replica).json()["version"] == versions[0]


def test_a_pointer_that_moves_while_files_are_read_is_not_overtaken(start, store, versions, loads, monkeypatch):
    replica = start()
    verify = VersionStore.verify

    def rolled_back_meanwhile(self: VersionStore, version: str):
        if version == versions[1] and self.active().version == version:
            store.rollback()
        return verify(self, version)

    monkeypatch.setattr(VersionStore, "verify", rolled_back_meanwhile)
    store.activate(versions[1])
    until(lambda: store.active().version == versions[0])
    until(lambda: replica.world.service.follower._named == versions[0])
    assert (loads, answering(replica)) == ([], versions[0])
    assert ready(replica).status_code == 200


def test_a_drain_that_takes_too_long_is_tried_again_and_the_replica_stays_ready(start, store, versions):
    replica = start(drain_seconds=0.05)
    replica.world.engine.seconds = 1.0
    slow = threading.Thread(target=lambda: answering(replica))
    slow.start()
    until(lambda: replica.world.engine.running > 0)
    store.activate(versions[1])
    until(lambda: not replica.world.service.swap_lock.is_open)
    assert ready(replica).status_code == 200
    slow.join()
    replica.world.engine.seconds = 0.0
    until_ready_with(replica, versions[1])


def test_an_operator_may_hurry_a_replica_but_not_lead_it_elsewhere(start, store, versions):
    replica = start(follow_spread_seconds=FOREVER)
    elsewhere = operate(replica, "POST", f"/versions/{versions[1]}/promote")
    assert_problem(elsewhere, 409, "not_active")
    assert "versions promote --store" in elsewhere.json()["detail"]
    store.activate(versions[1])
    swap = operate(replica, "POST", f"/versions/{versions[1]}/promote").json()
    assert (swap["version"], swap["previous"]) == (versions[1], versions[0])
    assert swap["blackout_ms"] > 0
    assert operate(replica, "POST", f"/versions/{versions[1]}/promote").json()["blackout_ms"] == 0
    assert_problem(operate(replica, "POST", "/rollback"), 409, "not_active")
    assert store.active().version == answering(replica) == versions[1]


def test_a_version_that_is_hurried_and_refused_is_told_as_ever(start, store, versions):
    replica = start(follow_spread_seconds=FOREVER)
    store.refuse(versions[1], "it agrees with 40 % of the votes")
    store.activate(versions[1])
    refused = operate(replica, "POST", f"/versions/{versions[1]}/promote")
    assert_problem(refused, 422, "version_refused")
    assert (store.active().version, answering(replica)) == (versions[1], versions[0])


def test_a_replica_that_restarts_begins_with_the_active_version(start, store, versions, loads):
    store.activate(versions[1])
    assert ready(start()).json()["version"] == versions[1]
    assert loads == []


def test_a_replica_that_restarts_on_a_broken_version_serves_the_one_before_and_is_not_ready(start, store, versions):
    store.activate(versions[1])
    weights = store.path(versions[1]) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    replica = start(follow_spread_seconds=FOREVER)
    assert "hash_mismatch" in until_not_following(replica)
    assert answering(replica) == versions[0]
    weights.write_bytes(whole)
    until_ready_with(replica, versions[1])


def test_a_replica_does_not_start_where_neither_version_can_serve(start, store, versions):
    store.activate(versions[1])
    for version in versions:
        (store.path(version) / "config.json").write_text("{}")
    with pytest.raises(UserError, match="hash_mismatch"):
        start()


def test_a_replica_writes_nothing_into_the_store(start, store, versions, tmp_path):
    adapter(store.root / "adapters" / "one")
    replica = start()
    store.activate(versions[1])
    before = tree(store.root)
    until_ready_with(replica, versions[1])
    operate(replica, "POST", "/adapters", json={"name": "one"})
    assert operate(replica, "POST", "/rollouts", json={**BATCH, "adapter": "one"}).json()["adapter"] == "one"
    operate(replica, "POST", f"/versions/{versions[0]}/promote")
    operate(replica, "POST", "/rollback")
    assert tree(store.root) == before
    assert (tmp_path / "state" / "adapters.json").exists()


def test_a_replica_tells_that_it_follows(start):
    told = httpx.get(f"{start().url}/v1/info").json()
    assert (told["role"], told["follows"]) == ("serve", True)
