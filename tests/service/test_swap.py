"""Promotion, rollback and refusal, around an engine that keeps vLLM's rules."""

from __future__ import annotations

import asyncio
import base64

import pytest
from PIL import Image

from evoquality.contract import RolloutPrompt, RolloutRequest, ScoreOptions
from service.errors import DrainTimeout, EngineDead, PointerFailure, UnknownAdapter, UnknownVersion, VersionError
from tests.full_disk import small_files
from tests.service.conftest import World, adapter, opened, picture
from tests.service.fake_engine import plain_answer

GREY = Image.new("RGB", (32, 32), "grey")


def score(world: World):
    return world.service.judge.score(opened(GREY), ScoreOptions(samples=1))


def test_a_promotion_changes_the_version_the_pointer_and_the_answers(world: World, run):
    swap = run(world.service.swapper.promote(world.second))
    assert (swap.version, swap.previous) == (world.second, world.first)
    assert swap.blackout_ms >= swap.drain_ms + swap.reload_ms > 0
    assert world.store.active().version == world.second
    assert run(score(world)).version == world.second


def test_a_rollback_leads_back(world: World, run):
    run(world.service.swapper.promote(world.second))
    assert run(world.service.swapper.rollback()).version == world.first
    assert run(score(world)).version == world.first


def test_promoting_what_serves_changes_nothing(world: World, run):
    swap = run(world.service.swapper.promote(world.first))
    assert (swap.version, swap.blackout_ms) == (world.first, 0)
    assert world.engine.asked == []


def test_there_is_no_way_back_from_the_first_version(world: World, run):
    with pytest.raises(UnknownVersion):
        run(world.service.swapper.rollback())


def test_swaps_under_load_lose_and_mix_nothing(world: World, run):
    async def story() -> list[str]:
        world.engine.seconds = 0.003
        calls = []
        async with asyncio.TaskGroup() as group:
            for step in range(60):
                calls.append(group.create_task(score(world)))
                if step % 15 == 7:
                    target = (world.second, world.first)[step // 15 % 2]
                    group.create_task(world.service.swapper.promote(target))
                await asyncio.sleep(0.002)
        return [call.result().version for call in calls]

    assert set(run(story())) == {world.first, world.second}


def refused(world: World, run, error: type[Exception], match: str = "") -> None:
    with pytest.raises(error, match=match):
        run(world.service.swapper.promote(world.second))
    assert world.store.active().version == world.first
    assert not world.engine.paused


def test_weights_that_do_not_load_are_refused_and_the_old_ones_restored(world: World, run):
    world.engine.bad_weights = {world.second}
    refused(world, run, VersionError, "load_failed")
    assert run(score(world)).version == world.first


def test_an_engine_that_does_not_pause_answers_on_with_the_old_weights(world: World, run, monkeypatch):
    pause = world.engine.pause

    async def pause_and_fail() -> None:
        await pause()
        monkeypatch.undo()
        raise RuntimeError("late")

    monkeypatch.setattr(world.engine, "pause", pause_and_fail)
    refused(world, run, VersionError, "load_failed")
    assert run(score(world)).version == world.first


def test_a_refusal_tells_nothing_of_the_engines_error(world: World, run):
    world.engine.bad_weights = {world.second}
    with pytest.raises(VersionError) as refusal:
        run(world.service.swapper.promote(world.second))
    assert "secret" not in refusal.value.detail


def test_a_version_whose_answers_leave_no_room_for_pictures_is_refused_before_anyone_waits(world: World, run):
    world.engine.no_room = True
    refused(world, run, VersionError, "no_room")
    assert world.engine.loaded == []


def test_unreadable_canaries_are_refused_and_the_old_weights_restored(world: World, run):
    world.engine.answer = lambda prompt, *rest: (
        "gibberish" if world.engine.version == world.second else plain_answer(prompt, *rest)
    )
    refused(world, run, VersionError, "unreadable_canaries")
    assert run(score(world)).score is not None


def test_a_disk_that_fills_before_the_pointer_moves_leaves_the_old_version_serving(world: World, run):
    with small_files(20):
        refused(world, run, PointerFailure, "pointer could not be moved")
    assert world.service.swap_lock.version.id == world.engine.version == world.first
    assert run(score(world)).version == world.first
    assert run(world.service.swapper.promote(world.second)).version == world.second


def test_a_pointer_that_cannot_be_written_is_told_where_nothing_had_to_be_loaded(world: World, run):
    (world.store.root / "ACTIVE").unlink()
    with small_files(20), pytest.raises(PointerFailure):
        run(world.service.swapper.promote(world.first))


def test_if_the_old_weights_do_not_load_either_the_engine_is_given_up(world: World, run):
    world.engine.bad_weights = {world.first, world.second}
    with pytest.raises(EngineDead):
        run(world.service.swapper.promote(world.second))
    assert world.engine.dead()
    with pytest.raises(EngineDead):
        run(score(world))


def test_changed_files_are_refused_before_anyone_waits(world: World, run):
    (world.store.path(world.second) / "config.json").write_text("{}")
    refused(world, run, VersionError, "hash_mismatch")
    assert world.engine.asked == []


def test_a_drain_that_takes_too_long_changes_nothing(make_world, run):
    world = make_world(drain_seconds=0.01)

    async def story() -> str:
        world.engine.seconds = 0.1
        running = asyncio.create_task(score(world))
        await asyncio.sleep(0)
        with pytest.raises(DrainTimeout):
            await world.service.swapper.promote(world.second)
        return (await running).version

    assert run(story()) == world.first


def test_an_adapter_is_served_until_a_swap(world: World, run):
    adapter(world.store.root / "adapters" / "one")
    prompts = [RolloutPrompt(task="score", images=["a"], samples=1)]
    request = RolloutRequest(images={"a": "-"}, prompts=prompts, adapter="one")

    async def story() -> None:
        await world.service.adapters.load("one")
        answer = await world.service.rollouts.answer(request, {"a": GREY})
        assert (answer.adapter, answer.version) == ("one", world.first)
        await world.service.swapper.promote(world.second)
        with pytest.raises(UnknownAdapter):
            await world.service.rollouts.answer(request, {"a": GREY})

    run(story())


def test_removing_an_adapter_waits_for_its_requests(world: World, run):
    path = adapter(world.store.root / "adapters" / "one")
    prompts = [RolloutPrompt(task="score", images=["a"], samples=1)]
    request = RolloutRequest(images={"a": "-"}, prompts=prompts, adapter="one")

    async def story() -> None:
        world.engine.held = asyncio.Event()
        await world.service.adapters.load("one")
        running = asyncio.create_task(world.service.rollouts.answer(request, {"a": GREY}))
        while not world.engine.running:
            await asyncio.sleep(0)
        removal = asyncio.create_task(world.service.adapters.remove("one"))
        while world.service.adapters.list():
            await asyncio.sleep(0)
        with pytest.raises(UnknownAdapter):
            await world.service.rollouts.answer(request, {"a": GREY})
        assert path.exists() and "one" in world.engine.adapters
        world.engine.held.set()
        await removal
        assert running.done() and (await running).adapter == "one"
        assert not path.exists() and world.engine.adapters == {}

    run(story())


def test_a_version_marked_as_refused_is_listed_with_the_reason_and_never_served(world: World, run):
    world.store.refuse(world.second, "it agrees with 40 % of the votes")

    async def promote_and_list() -> tuple[int, str, dict[str, str | None]]:
        async with world.operators() as client:
            answer = await client.post(f"/internal/versions/{world.second}/promote")
        async with world.public() as client:
            listed = (await client.get("/v1/versions")).json()["versions"]
        return answer.status_code, answer.json()["detail"], {row["id"]: row["refused"] for row in listed}

    status, detail, listed = run(promote_and_list())
    assert (status, world.service.swap_lock.version.id) == (422, world.first)
    assert "refused: it agrees with 40 % of the votes" in detail
    assert listed == {world.first: None, world.second: "it agrees with 40 % of the votes"}


@pytest.mark.parametrize("swap", ["promote", "rollback"])
def test_a_swap_waits_for_no_rollouts_and_they_are_told_to_ask_again(world: World, run, swap: str):
    run(world.service.swapper.promote(world.second))
    body = {
        "images": {"a": base64.b64encode(picture()).decode()},
        "prompts": [{"task": "score", "images": ["a"], "samples": 64}] * 64,
    }

    async def story() -> tuple[int, str, bool]:
        world.engine.held = asyncio.Event()
        async with world.operators() as client:
            rollouts = asyncio.create_task(client.post("/internal/rollouts", json=body))
            while not world.engine.running:
                await asyncio.sleep(0)
            paths = {"promote": f"/internal/versions/{world.first}/promote", "rollback": "/internal/rollback"}
            canaries = asyncio.create_task(client.post(paths[swap]))
            refused = await rollouts
            world.engine.held.set()
            assert (await canaries).json()["version"] == world.first
        return refused.status_code, refused.json()["code"], "retry-after" in refused.headers

    assert run(story()) == (503, "swapping", True)
