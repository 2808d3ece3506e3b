"""Weights are never served unless they are those that were promoted: by their hashes and by their answers."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.api.service import create_service
from service.errors import EngineDead, VersionError
from service.versions.canaries import Answer, Answers, Canaries, _alike
from service.versions.store import VersionStore
from tests.service.conftest import KEY, Listening, World
from tests.service.fake_engine import FakeEngine, plain_answer
from tests.service.test_follower import until
from tests.service.test_swap import score


def fail_canaries_of_the_second(world: World) -> None:
    world.engine.answer = lambda prompt, *rest: (
        "gibberish" if world.engine.version == world.second else plain_answer(prompt, *rest)
    )


def alter(version: Path) -> None:
    file = version / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] = (content[-1] + 1) % 256
    file.write_bytes(content)


def begin(world: World, run) -> None:
    """The service's own first questions."""
    run(world.service.swapper.canaries.ask(world.service.swap_lock.version))


def test_nothing_is_tried_while_the_serving_version_could_not_be_restored(world: World, run):
    alter(world.store.path(world.first))
    fail_canaries_of_the_second(world)
    with pytest.raises(VersionError, match=r"no_way_back: .*model\.safetensors was altered"):
        run(world.service.swapper.promote(world.second))
    assert run(score(world)).version == world.first
    assert world.engine.loaded == []


def test_files_altered_during_a_swap_are_not_restored(world: World, run, caplog: pytest.LogCaptureFixture):
    folder = world.store.path(world.first)

    def answer(prompt, *rest) -> str:
        if world.engine.version == world.second:
            alter(folder)
            return "gibberish"
        return plain_answer(prompt, *rest)

    world.engine.answer = answer
    with pytest.raises(EngineDead):
        run(world.service.swapper.promote(world.second))
    assert "model.safetensors was altered" in caplog.text
    assert world.engine.loaded == [world.second] and world.engine.dead()


def test_a_rollback_leads_away_from_a_version_whose_files_are_broken(world: World, run):
    run(world.service.swapper.promote(world.second))
    alter(world.store.path(world.second))
    assert run(world.service.swapper.rollback()).version == world.first


def test_weights_that_load_as_others_are_refused_and_the_old_ones_restored(world: World, run):
    begin(world, run)
    run(world.service.swapper.promote(world.second))
    run(world.service.swapper.rollback())
    world.engine.logprobs = {world.second: -0.7}
    with pytest.raises(VersionError, match="changed_answers"):
        run(world.service.swapper.promote(world.second))
    assert run(score(world)).version == world.engine.version == world.first


def test_weights_that_are_restored_as_others_end_the_engine(world: World, run, caplog: pytest.LogCaptureFixture):
    begin(world, run)
    fail_canaries_of_the_second(world)
    world.engine.logprobs = {world.first: -0.7}
    with pytest.raises(EngineDead):
        run(world.service.swapper.promote(world.second))
    assert "changed_answers" in caplog.text and world.engine.dead()


def test_what_a_version_answered_outlives_the_process(world: World, run):
    begin(world, run)
    engine = FakeEngine(world.first)
    engine.logprobs = {world.first: -0.7}
    again = create_service(world.settings, KEY, engine, VersionStore(world.store.root), world.service.swap_lock.version)
    with pytest.raises(VersionError, match="changed_answers"):
        run(again.swapper.canaries.ask(again.swap_lock.version))
    engine.arithmetic = "bfloat16 of another engine"
    run(again.swapper.canaries.ask(again.swap_lock.version))


def test_a_record_that_is_broken_or_cannot_be_written_stops_nothing(
    world: World, run, caplog: pytest.LogCaptureFixture
):
    folder = world.store.root / "canaries"
    folder.mkdir()
    (folder / f"{world.second}.json").write_text("[]")
    run(world.service.swapper.promote(world.second))
    assert f"canaries/{world.second}.json is passed over" in caplog.text
    shutil.rmtree(folder)
    folder.write_text("in the way")
    caplog.set_level(logging.WARNING)
    assert run(world.service.swapper.rollback()).version == world.first
    assert "could not be recorded" in caplog.text


def answers(arithmetic: str, *logprobs: float, tokens: tuple[int, ...] = (1, 2)) -> Answers:
    return Answers(arithmetic=arithmetic, answers=[Answer(token_ids=list(tokens), logprobs=list(logprobs))])


@pytest.mark.parametrize(
    ("dtype", "moved", "alike"),
    [("float32", 5e-4, True), ("float32", 5e-3, False), ("float16", 0.02, True), ("float16", 0.2, False),
     ("bfloat16", 0.2, True), ("bfloat16", 0.5, False)],
)  # fmt: skip
def test_answers_may_move_as_far_as_the_arithmetic_does(dtype: str, moved: float, alike: bool):
    first, now = answers(f"{dtype} on cpu", -0.1, -0.2), answers(f"{dtype} on cpu", -0.1, -0.2 - moved)
    assert _alike(first, now) is _alike(now, first) is alike


def test_tokens_may_differ_only_where_they_were_equally_likely():
    sure, tied = answers("float32", -0.01, -0.01), answers("float32", -0.7, -0.01)
    assert not _alike(sure, answers("float32", -0.01, -0.01, tokens=(3, 2)))
    assert _alike(tied, answers("float32", -0.7, -3.0, tokens=(3, 2)))
    assert not _alike(sure, answers("float32", -0.01, tokens=(1,)))


def test_a_promotion_whose_client_hangs_up_in_the_queue_does_not_run(world: World, run):
    async def story() -> None:
        held = asyncio.Event()
        world.engine.held = held
        first = asyncio.create_task(world.service.swapper.promote(world.second))
        while not world.engine.running:  # its canaries wait
            await asyncio.sleep(0)
        queued = asyncio.create_task(world.service.swapper.rollback())
        await asyncio.sleep(0)
        queued.cancel()
        held.set()
        await first
        await asyncio.wait((queued,))

    run(story())
    assert world.service.swap_lock.version.id == world.store.active().version == world.second


def test_a_promotion_that_has_begun_ends_though_its_client_hangs_up(world: World, run):
    async def story() -> None:
        world.engine.held = asyncio.Event()
        begun = asyncio.create_task(world.service.swapper.promote(world.second))
        while not world.engine.running:
            await asyncio.sleep(0)
        begun.cancel()
        await asyncio.sleep(0)
        assert not begun.done()  # so that the next one waits
        world.engine.held.set()
        await asyncio.wait((begun,))

    run(story())
    assert world.service.swap_lock.version.id == world.store.active().version == world.second


def test_the_operators_route_ends_a_queued_promotion_with_its_client(listening: Listening):
    world = listening.world
    held = world.engine.held = asyncio.Event()
    swapper, port = world.service.swapper, int(listening.operator_url.rpartition(":")[2])
    with listening.operators as operators, ThreadPoolExecutor(1) as pool:
        swap = pool.submit(operators.post, f"/internal/versions/{world.second}/promote", timeout=60)
        until(lambda: world.engine.running > 0)  # its canaries
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /internal/rollback HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\n"
            client.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
            until(lambda: bool(swapper._one_at_a_time._waiters))
        until(lambda: not swapper._one_at_a_time._waiters)
        held._loop.call_soon_threadsafe(held.set)
        assert swap.result().status_code == 200
    assert world.service.swap_lock.version.id == world.store.active().version == world.second


def test_canaries_are_kept_where_a_replica_may_write(world: World, run, tmp_path: Path):
    store = VersionStore(world.store.root, tmp_path / "state")
    store.state.mkdir()
    run(Canaries(world.engine, store).ask(world.service.swap_lock.version))
    assert (tmp_path / "state" / "canaries" / f"{world.first}.json").exists()
    assert not (world.store.root / "canaries").exists()
