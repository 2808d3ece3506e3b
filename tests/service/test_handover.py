"""Role rollout: weights that the trainer hands over, and what an engine of either role refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from evoquality.contract import RolloutPrompt, RolloutRequest, RolloutResponse
from service.configuration.settings import Settings
from service.errors import EngineDead, Swapping, UnknownWeights, VersionConflict, VersionError
from service.versions.first import first_version
from service.versions.importing import import_checkpoint
from service.versions.store import VersionStore
from tests.service.conftest import World, adapter, checkpoint, picture
from tests.service.test_http import assert_problem
from tests.service.test_operators import BATCH, ask

GREY = Image.new("RGB", (32, 32), "grey")


@pytest.fixture
def rollout(make_world: Callable[..., World]) -> World:
    return make_world(role="rollout")


def hand_over(world: World, name: str, **tensors: np.ndarray) -> Path:
    """Weights for the world's engine in the folder of handed-over ones."""
    path = world.settings.handover_folder / name
    path.mkdir(parents=True)
    weights = {"a.weight": np.ones((4, 3), np.float32), "b.bias": np.ones(3, np.float32)}
    save_file({**weights, **tensors}, path / "model.safetensors")
    return path


def roll_out(world: World, version: str | None = None):
    prompt = RolloutPrompt(task="score", images=["a"], samples=2)
    return world.service.rollouts.answer(
        RolloutRequest(images={"a": "-"}, prompts=[prompt], version=version), {"a": GREY}
    )


def test_rollouts_name_the_weights_that_were_handed_over(rollout: World, run):
    hand_over(rollout, "step-1")
    swap = run(rollout.service.swapper.overwrite("step-1"))
    assert (swap.version, swap.previous) == ("step-1", rollout.first)
    answer: RolloutResponse = run(roll_out(rollout, "step-1"))
    assert answer.version == rollout.engine.version == "step-1"
    with pytest.raises(VersionConflict):
        run(roll_out(rollout, rollout.first))


def test_the_pointer_of_the_store_stays_with_the_serving_engines(rollout: World, run):
    hand_over(rollout, "step-1")
    run(rollout.service.swapper.overwrite("step-1"))
    assert rollout.store.active().version == rollout.first


async def insist(world: World) -> RolloutResponse:
    """Asks until no swap comes in between, as the trainer does."""
    while True:
        with suppress(Swapping):
            return await roll_out(world)


def test_overwriting_under_rollouts_mixes_none_and_loses_none_that_asks_again(rollout: World, run):
    names = [f"step-{number}" for number in range(4)]
    for name in names:
        hand_over(rollout, name)

    async def story() -> list[str]:
        rollout.engine.seconds = 0.003
        calls = []
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                calls.append(group.create_task(insist(rollout)))
                if number % 15 == 7:
                    group.create_task(rollout.service.swapper.overwrite(names[number // 15]))
                await asyncio.sleep(0.002)
        return [call.result().version for call in calls]

    assert set(run(story())) == {rollout.first, *names}


def test_handing_over_the_same_weights_twice_is_done_once(rollout: World, run):
    hand_over(rollout, "step-1")
    run(rollout.service.swapper.overwrite("step-1"))
    assert run(rollout.service.swapper.overwrite("step-1")).blackout_ms == 0


def refused(world: World, run, name: str, error: type[Exception], match: str | None = None) -> None:
    """As refused weights must end: what was loaded before answers."""
    before = world.service.swap_lock.version.id
    with pytest.raises(error, match=match):
        run(world.service.swapper.overwrite(name))
    assert run(roll_out(world)).version == before


def test_weights_that_could_not_replace_the_engines_are_refused(rollout: World, run):
    hand_over(rollout, "shape", **{"a.weight": np.ones((4, 2), np.float32)})
    hand_over(rollout, "more", c=np.ones(1, np.float32))
    hand_over(rollout, "nan", **{"b.bias": np.full(3, np.nan, np.float32)})
    (hand_over(rollout, "none") / "model.safetensors").unlink()
    for name, reason in [
        ("shape", "wrong_shape"), ("more", "extra_tensor"), ("nan", "not_finite"), ("none", "unreadable_weights"),
    ]:  # fmt: skip
        refused(rollout, run, name, VersionError, reason)


def test_weights_with_others_beside_them_are_refused(rollout: World, run):
    twice = hand_over(rollout, "two")
    (twice / "z.safetensors").write_bytes((twice / "model.safetensors").read_bytes())
    refused(rollout, run, "two", UnknownWeights, "no others beside")


def test_weights_that_do_not_load_give_way_to_those_before(rollout: World, run):
    hand_over(rollout, "good")
    hand_over(rollout, "bad")
    run(rollout.service.swapper.overwrite("good"))
    rollout.engine.bad_weights = {"bad"}
    refused(rollout, run, "bad", VersionError, "load_failed")


def test_if_those_before_do_not_load_either_the_engine_is_given_up(rollout: World, run):
    hand_over(rollout, "bad")
    rollout.engine.bad_weights = {"bad", rollout.first}
    with pytest.raises(EngineDead):
        run(rollout.service.swapper.overwrite("bad"))


def test_rollouts_give_way_to_new_weights_however_long_they_take(rollout: World, run):
    hand_over(rollout, "step-1")

    async def story() -> str:
        rollout.engine.held = asyncio.Event()
        running = asyncio.create_task(roll_out(rollout))
        await asyncio.sleep(0)
        await rollout.service.swapper.overwrite("step-1")
        with pytest.raises(Swapping):
            await running
        rollout.engine.held.set()
        return (await roll_out(rollout)).version

    assert run(story()) == "step-1"


@pytest.mark.parametrize("name", ["..", "../versions", "a/b", "", ".x", "step-2\n"])
def test_names_lead_nowhere_else(rollout: World, run, name: str):
    hand_over(rollout, "step-1")
    refused(rollout, run, name, UnknownWeights)
    assert_problem(ask(rollout, run, "PUT", "/internal/weights", json={"name": name}), 422, "invalid_request")


def test_links_lead_nowhere_else(rollout: World, run):
    versions = rollout.store.root / "versions" / rollout.second
    file = hand_over(rollout, "file") / "model.safetensors"
    file.unlink()
    file.symlink_to(versions / "model.safetensors")
    (rollout.settings.handover_folder / "folder").symlink_to(versions)
    refused(rollout, run, "file", UnknownWeights)
    refused(rollout, run, "folder", UnknownWeights)


def test_the_folder_is_a_setting(make_world: Callable[..., World], tmp_path: Path, run):
    world = make_world(role="rollout", handover=tmp_path / "shm")
    hand_over(world, "step-1")
    swap = ask(world, run, "PUT", "/internal/weights", json={"name": "step-1"}).json()
    assert swap["version"] == "step-1"
    assert_problem(ask(world, run, "PUT", "/internal/weights", json={"name": "gone"}), 404, "unknown_weights")


def test_a_rollout_engine_serves_nobody_else(rollout: World, run):
    async def story() -> None:
        async with rollout.public() as public:
            for path in ("/v1/score", "/v1/compare", "/v1/score/batch", "/v1/rank"):
                assert_problem(await public.post(path, files={"image": picture()}), 409, "wrong_role")
            assert (await public.get("/health/ready")).status_code == 200

    run(story())
    assert_problem(ask(rollout, run, "POST", "/internal/rollback"), 409, "wrong_role")


def test_a_promotion_on_a_rollout_engine_tries_the_version_and_leaves_the_pointer(rollout: World, run):
    hand_over(rollout, "step-1")
    run(rollout.service.swapper.overwrite("step-1"))
    asked = len(rollout.engine.asked)
    swap = ask(rollout, run, "POST", f"/internal/versions/{rollout.second}/promote").json()
    assert (swap["version"], swap["previous"]) == (rollout.second, "step-1")
    assert len(rollout.engine.asked) > asked
    assert run(roll_out(rollout, rollout.second)).version == rollout.second
    assert rollout.store.active().version == rollout.first


def test_a_promotion_is_refused_for_what_no_weights_alone_replace_after_handed_over_ones_too(
    rollout: World, tmp_path: Path, run
):
    other = checkpoint(tmp_path / "other", 3)
    (other / "config.json").write_text('{"model_type": "another"}')
    another = rollout.store.add(other, parent=None, profile="plain", origin="test").id
    hand_over(rollout, "step-1")
    run(rollout.service.swapper.overwrite("step-1"))
    answer = ask(rollout, run, "POST", f"/internal/versions/{another}/promote")
    assert_problem(answer, 422, "version_refused")
    assert run(roll_out(rollout, "step-1")).version == "step-1"


def test_a_rollout_engine_answers_with_adapters(rollout: World, run):
    adapter(rollout.store.root / "adapters" / "one")
    assert ask(rollout, run, "POST", "/internal/adapters", json={"name": "one"}).status_code == 201
    assert ask(rollout, run, "POST", "/internal/rollouts", json={**BATCH, "adapter": "one"}).json()["adapter"] == "one"


def test_a_serving_engine_is_not_overwritten(world: World, run):
    hand_over(world, "step-1")
    assert_problem(ask(world, run, "PUT", "/internal/weights", json={"name": "step-1"}), 409, "wrong_role")
    assert world.engine.version == world.first


def test_a_rollout_engine_begins_with_the_active_version_awaits_it_and_makes_none(
    rollout: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert first_version(rollout.store, rollout.settings).id == rollout.first
    source = rollout.store.path(rollout.first)
    settings = Settings(store=tmp_path / "new", role="rollout", checkpoint=str(source), follow_seconds=0.01)
    store = VersionStore(settings.store)
    with ThreadPoolExecutor() as beside:
        awaited = beside.submit(first_version, store, settings)
        while "has no active version yet" not in caplog.text:
            assert not awaited.done()
        assert store.list() == []
        imported = import_checkpoint(store, str(source), "plain")
        assert awaited.result(20) == imported
