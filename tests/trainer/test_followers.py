"""Promotion and rollback where a rollout engine works for the trainer, and a follower of the store serves users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evoquality import Client, ServiceError
from tests.full_disk import small_files
from tests.service.conftest import KEY, World, checkpoint
from tests.trainer.promoting import answer_as, changed, context, gated, observer, serving
from tests.trainer.replicas import Replicas
from trainer.errors import DiskFull, Regressed, WrongVersion
from trainer.files import read_json, write_json
from trainer.promotion.behaviour import Observer
from trainer.stages.context import RoundContext
from trainer.stages.promote import promote
from trainer.stages.start import start

__all__ = ["context", "gated", "observer"]

ROLLOUT, FOLLOWER = 0, 1


@pytest.fixture
def replicas(make_world: Callable[..., World], hurry: None) -> Iterator[Replicas]:
    made = Replicas(make_world())
    made.start(role="rollout")
    made.start(follow=True)
    yield made
    made.stop_all()


def pointer(replicas: Replicas) -> tuple[str, str | None]:
    """The version that ACTIVE names, and the one before."""
    active = replicas.first.store.active()
    assert active is not None
    return active.version, active.previous


def test_the_trainer_moves_the_pointer_and_the_follower_swaps_at_once(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    with Client(replicas.urls[FOLLOWER], KEY) as follower, pytest.raises(ServiceError, match="not_active"):
        follower.promote(second)
    assert (pointer(replicas), serving(replicas)) == ((first, None), [first, first])
    promote(gated, observer)
    assert (pointer(replicas), serving(replicas)) == ((second, first), [second, second])
    assert read_json(gated.folder / "promotion.json")["behind"] == []


def test_a_version_that_the_rollout_engine_refuses_never_becomes_the_active_one(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    answer_as(replicas, "I cannot tell.", ROLLOUT)
    with pytest.raises(Regressed, match="unreadable_canaries"):
        promote(gated, observer)
    assert pointer(replicas) == (replicas.first.first, None)
    assert serving(replicas) == [replicas.first.first] * 2


def test_of_a_version_that_a_follower_refuses_the_pointer_is_moved_back(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    answer_as(replicas, "I cannot tell.", FOLLOWER)
    for _ in range(2):  # however often it is started again
        with pytest.raises(Regressed, match=r"the service refused it .unreadable_canaries"):
            promote(gated, observer)
        assert (pointer(replicas), serving(replicas)) == ((first, second), [first, first])
    assert "unreadable_canaries" in str(gated.store.refusal(second))


def test_of_a_version_that_answers_otherwise_the_pointer_is_moved_back(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    for number in (ROLLOUT, FOLLOWER):
        answer_as(replicas, "4.90", number)
    with pytest.raises(Regressed, match="at the gate"):
        promote(gated, observer)
    assert (pointer(replicas), serving(replicas)) == ((first, second), [first, first])


@pytest.mark.parametrize("rollout_has_swapped", [True, False])
def test_a_promotion_killed_once_the_pointer_was_moved_comes_to_the_same_end(
    gated: RoundContext, observer: Observer, replicas: Replicas, rollout_has_swapped: bool
) -> None:
    first, second = replicas.first.first, replicas.first.second
    if rollout_has_swapped:
        with Client(replicas.urls[ROLLOUT], KEY) as rollout:
            rollout.promote(second)
    replicas.first.store.activate(second)
    start(gated)
    promote(gated, observer)
    assert (pointer(replicas), serving(replicas)) == ((second, first), [second, second])


def test_a_follower_that_is_gone_does_not_keep_the_pointer_from_being_moved_back(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    write_json(gated.folder / "rollback.json", {"version": second, "reason": "it was worse"})
    replicas.first.store.activate(second)
    replicas.stop(FOLLOWER)
    with pytest.raises(Regressed):
        promote(gated, observer)
    assert pointer(replicas) == (first, second)


def test_a_pointer_that_somebody_else_moved_is_left_where_it_is(
    gated: RoundContext, observer: Observer, replicas: Replicas, tmp_path: Path
) -> None:
    store = replicas.first.store
    third = store.add(checkpoint(tmp_path / "third", 3), parent=None, profile="plain", origin="test").id
    store.activate(third)
    for part in (lambda: start(gated), lambda: promote(gated, observer)):
        with pytest.raises(WrongVersion, match=f"serves {third} now"):
            part()
    assert pointer(replicas) == (third, replicas.first.first)


def test_a_version_that_somebody_went_back_from_is_not_promoted_again(
    gated: RoundContext, observer: Observer, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, store = replicas.first.first, replicas.first.second, replicas.first.store
    monkeypatch.setattr(Observer, "observe", killed)
    with pytest.raises(KeyboardInterrupt):
        promote(gated, observer)
    monkeypatch.undo()
    assert pointer(replicas) == (second, first)
    store.rollback()
    start(gated)
    for _ in range(2):
        with pytest.raises(WrongVersion, match=f"{second} was promoted, and somebody rolled back to {first}"):
            promote(gated, observer)
        assert pointer(replicas) == (first, second)
    store.activate(second)
    promote(gated, observer)
    assert (pointer(replicas), serving(replicas)) == ((second, first), [second, second])


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_pointer_that_somebody_moves_during_a_promotion_is_left_there(
    gated: RoundContext, observer: Observer, replicas: Replicas, tmp_path: Path
) -> None:
    first, store = replicas.first.first, replicas.first.store
    third = store.add(checkpoint(tmp_path / "third", 3), parent=None, profile="plain", origin="test").id
    meanwhile(replicas, lambda: store.activate(third))
    with pytest.raises(WrongVersion, match=f"pointer to {third} while"):
        promote(gated, observer)
    assert pointer(replicas) == (third, first)


def test_a_pointer_that_somebody_moved_is_not_rolled_back_but_the_version_is_marked(
    gated: RoundContext, observer: Observer, replicas: Replicas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, store = replicas.first.second, replicas.first.store
    third = store.add(checkpoint(tmp_path / "third", 3), parent=None, profile="plain", origin="test").id

    def regressions(*_: object) -> list[str]:
        store.activate(third)
        return ["it was worse"]

    monkeypatch.setattr("trainer.promotion.criteria.regressions", regressions)
    with pytest.raises(WrongVersion, match=f"pointer to {third} while"):
        promote(gated, observer)
    assert pointer(replicas) == (third, second)
    assert "it was worse" in str(store.refusal(second))


def meanwhile(replicas: Replicas, happens: Callable[[], object]) -> None:
    """While the rollout engine loads."""
    engine = replicas.worlds[ROLLOUT].engine
    reload = engine.reload

    async def reloading(weights: Path, version: str) -> None:
        happens()
        await reload(weights, version)

    engine.reload = reloading


def test_a_full_disk_ends_a_promotion_and_a_rollback_until_there_is_room(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    with pytest.raises(DiskFull, match=r"ACTIVE could not be written"), small_files(20):
        gated.workers.promote(second, first)
    assert pointer(replicas) == (first, None)
    replicas.first.store.activate(second)
    write_json(gated.folder / "rollback.json", {"version": second, "reason": "it was worse"})
    with pytest.raises(DiskFull), small_files(20):
        promote(gated, observer)
    with pytest.raises(Regressed):
        promote(gated, observer)
    assert (pointer(replicas), serving(replicas)) == ((first, second), [first, first])


def test_a_rollout_engine_that_holds_another_version_begins_the_round_with_the_base(
    context: RoundContext, replicas: Replicas
) -> None:
    first, second = replicas.first.first, replicas.first.second
    with Client(replicas.urls[ROLLOUT], KEY) as rollout:
        rollout.promote(second)
    assert serving(replicas) == [second, first]
    start(context)
    assert (context.base, serving(replicas)) == (first, [first, first])


def test_a_run_may_begin_with_another_version_than_the_active_one(context: RoundContext, replicas: Replicas) -> None:
    first, second = replicas.first.first, replicas.first.second
    begun = changed(context, base=second)
    for _ in range(2):
        start(begun)
        assert (begun.base, pointer(replicas), serving(replicas)) == (second, (second, first), [second, second])


def test_a_base_that_a_replica_refuses_is_not_begun_with(context: RoundContext, replicas: Replicas) -> None:
    answer_as(replicas, "I cannot tell.", FOLLOWER)
    with pytest.raises(ServiceError, match="unreadable_canaries"):
        start(changed(context, base=replicas.first.second))
    assert pointer(replicas)[0] == replicas.first.first
    assert serving(replicas) == [replicas.first.first] * 2
    assert not (context.folder / "start.json").exists()


def test_a_base_that_the_store_does_not_have_is_named(context: RoundContext, replicas: Replicas) -> None:
    with pytest.raises(ValueError, match=f"--base v0 is not in the store .*, which has {replicas.first.first}, "):
        start(changed(context, base="v0"))
