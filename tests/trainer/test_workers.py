"""Replicas as rollout workers: the HTTP layer is real, only the engines behind it have no model."""

from __future__ import annotations

import threading
import time

import pytest

from evoquality import ServiceError
from evoquality.contract import RolloutPrompt
from tests.service.conftest import adapter
from tests.trainer.replicas import EXPECTED, Replicas, batch, scores
from trainer.errors import Unreachable, WrongVersion


def test_a_batch_is_spread_over_the_replicas_and_comes_back_in_order(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        assert scores(workers.rollouts(batch(replicas))) == EXPECTED
    assert (replicas.asked(0), replicas.asked(1)) == (4, 4)


def test_a_dead_replica_is_skipped_and_asked_again_once_it_is_back(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        replicas.stop(1)
        assert scores(workers.rollouts(batch(replicas))) == EXPECTED
        assert replicas.asked(0) == 8
        replicas.start(1)
        time.sleep(0.3)
        assert scores(workers.rollouts(batch(replicas))) == EXPECTED
    assert replicas.asked(1) == 4
    assert replicas.said == []


def test_a_replica_on_another_version_is_not_asked(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        replicas.worlds[1].service.swap_lock.version = replicas.first.store.info(replicas.first.second)
        assert scores(workers.rollouts(batch(replicas))) == EXPECTED
        assert replicas.asked(1) == 0


def test_if_all_replicas_are_on_another_version_the_round_stops_at_once(replicas: Replicas) -> None:
    for world in replicas.worlds:
        world.service.swap_lock.version = replicas.first.store.info(replicas.first.second)
    with replicas.workers() as workers, pytest.raises(WrongVersion, match=replicas.first.second):
        workers.rollouts(batch(replicas))


def test_an_unreachable_service_is_waited_for_and_the_wait_is_told(replicas: Replicas) -> None:
    replicas.stop_all()
    back = threading.Timer(1.5, lambda: replicas.start(0))
    back.start()
    with replicas.workers() as workers:
        assert scores(workers.rollouts(batch(replicas))) == EXPECTED
    back.join()
    assert "service unreachable, waiting (" in replicas.said[0]


def test_patience_ends_with_an_error_that_names_the_replicas(replicas: Replicas) -> None:
    replicas.stop_all()
    with (
        replicas.workers(patience=0.5) as workers,
        pytest.raises(Unreachable, match=f"no replica of the service answered for 0 s.*{replicas.urls[1]}"),
    ):
        workers.rollouts(batch(replicas))


def test_adapters_are_loaded_on_every_replica_under_names_of_their_own(replicas: Replicas) -> None:
    adapters = replicas.first.store.root / "adapters"
    adapter(adapters / "policy")
    with replicas.workers() as workers:
        workers.load_adapter("policy")
        names = [next(iter(world.engine.adapters)) for world in replicas.worlds]
        assert names[0] != names[1]
        response = workers.rollouts(batch(replicas, adapter="policy"))
        assert (scores(response), response.adapter) == (EXPECTED, "policy")
        workers.unload_adapter("policy")
    assert [world.engine.adapters for world in replicas.worlds] == [{}, {}]
    assert [path.name for path in adapters.iterdir()] == ["policy"]


def test_a_restarted_replica_is_given_the_adapter_again(replicas: Replicas) -> None:
    adapter(replicas.first.store.root / "adapters" / "policy")
    with replicas.workers() as workers:
        workers.load_adapter("policy")
        for number in (0, 1):
            replicas.stop(number)
            replicas.start(number)
        assert scores(workers.rollouts(batch(replicas, adapter="policy"))) == EXPECTED
        assert sum(len(world.engine.adapters) for world in replicas.worlds) >= 1


def test_a_refused_request_is_not_repeated(replicas: Replicas) -> None:
    request = batch(replicas)
    request.prompts[0] = RolloutPrompt(task="compare", images=["0"], samples=1)
    with replicas.workers() as workers, pytest.raises(ServiceError, match="compare takes two"):
        workers.rollouts(request)


def test_a_promotion_goes_to_every_replica_and_names_those_that_did_not_follow(replicas: Replicas) -> None:
    third = replicas.start()
    replicas.stop(third)
    with replicas.workers() as workers:
        swap, behind = workers.promote(replicas.first.second, replicas.first.first)
    assert swap.version == replicas.first.second
    assert [world.service.swap_lock.version.id for world in replicas.worlds[:2]] == [replicas.first.second] * 2
    assert behind == [replicas.urls[third]]


def test_replicas_that_load_adapters_at_once_never_share_an_id(replicas: Replicas) -> None:
    store = replicas.first.store
    ids: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: ids.extend(store.new_adapter_id(f"a{n}-{i}") for i in range(20)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 80
