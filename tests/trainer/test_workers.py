"""Replicas as rollout workers: the HTTP layer is real, only the engines behind it have no model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from evoquality import Client, ServiceError
from evoquality.contract import ExactVotes, RolloutPrompt
from service.configuration.settings import Settings
from tests.service.conftest import KEY, World, adapter, picture
from tests.service.test_lines import Gate, cut_after
from tests.trainer.replicas import EXPECTED, PICTURES, PROMPTS, Files, Replicas, ask, scores
from trainer.errors import Unreachable, WrongVersion
from trainer.workers import sizing
from trainer.workers.sizing import fitting, parts

SIZES = {"a": 10, "b": 20, "c": 30, "d": 99}


def test_a_batch_is_spread_over_the_replicas_and_comes_back_in_order(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        assert ask(workers, replicas.first.first) == EXPECTED
    assert (replicas.asked(0), replicas.asked(1)) == (4, 4)


def test_a_dead_replica_is_skipped_and_asked_again_once_it_is_back(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        replicas.stop(1)
        assert ask(workers, replicas.first.first) == EXPECTED
        assert replicas.asked(0) == 8
        replicas.start(1)
        replica = workers.asynchronous._crew.replicas[1]
        while not replica.may_be_asked:
            time.sleep(0.01)
        assert ask(workers, replicas.first.first) == EXPECTED
    assert replicas.asked(1) == 4
    assert replicas.said == []


def test_a_replica_on_another_version_is_not_asked(replicas: Replicas) -> None:
    with replicas.workers() as workers:
        replicas.worlds[1].service.swap_lock.version = replicas.first.store.info(replicas.first.second)
        assert ask(workers, replicas.first.first) == EXPECTED
        assert replicas.asked(1) == 0


def test_if_all_replicas_are_on_another_version_the_round_stops_at_once(replicas: Replicas) -> None:
    for world in replicas.worlds:
        world.service.swap_lock.version = replicas.first.store.info(replicas.first.second)
    with replicas.workers() as workers, pytest.raises(WrongVersion, match=replicas.first.second):
        ask(workers, replicas.first.first)


def test_an_unreachable_service_is_waited_for_and_the_wait_is_reported(replicas: Replicas) -> None:
    replicas.stop_all()
    heard = threading.Event()

    def come_back() -> None:
        heard.wait()
        replicas.start(0)

    back = threading.Thread(target=come_back)
    back.start()
    with replicas.workers(patience=300, say=lambda text: (replicas.said.append(text), heard.set())) as workers:
        assert ask(workers, replicas.first.first) == EXPECTED
    back.join()
    assert "service unreachable, waiting (" in replicas.said[0]


def test_patience_ends_with_an_error_that_names_the_replicas(replicas: Replicas) -> None:
    replicas.stop_all()
    with (
        replicas.workers(patience=0.5) as workers,
        pytest.raises(Unreachable, match=f"no replica of the service answered for 0 s.*{replicas.urls[1]}"),
    ):
        ask(workers, replicas.first.first)


def test_adapters_are_loaded_on_every_replica_under_names_of_their_own(replicas: Replicas) -> None:
    adapters = replicas.first.store.root / "adapters"
    adapter(adapters / "policy")
    with replicas.workers() as workers:
        workers.load_adapter("policy")
        names = [next(iter(world.engine.adapters)) for world in replicas.worlds]
        assert names[0] != names[1]
        assert ask(workers, replicas.first.first, adapter="policy") == EXPECTED
        assert {asked[2].name for world in replicas.worlds for asked in world.engine.asked} == set(names)
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
        assert ask(workers, replicas.first.first, adapter="policy") == EXPECTED
        assert sum(len(world.engine.adapters) for world in replicas.worlds) >= 1


def test_a_refused_request_is_not_repeated(replicas: Replicas) -> None:
    wrong = RolloutPrompt(task="compare", images=["0"], samples=1)
    with replicas.workers() as workers, pytest.raises(ServiceError, match="compare takes two"):
        ask(workers, replicas.first.first, [wrong])


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


@pytest.mark.parametrize(
    ("items", "count"),
    [(["ab", "bc", "ca"], 3), (["ab", "c", "d"], 2), (["d", "a"], 1), (["a", "d"], 1), (["aa", "aa", "bb"], 3)],
)
def test_as_many_as_fit_are_taken_each_image_counted_once_and_one_in_any_case(
    items: list[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "MAX_IMAGE_BYTES", 60)
    assert fitting(items, items, SIZES) == items[:count]


def test_a_pair_of_the_longest_files_fits_and_the_rest_of_a_body_has_room() -> None:
    of = Settings.model_fields
    assert 2 * of["max_upload_bytes"].default < sizing.MAX_IMAGE_BYTES
    assert of["max_operator_bytes"].default / 2 > sizing.MAX_IMAGE_BYTES * 4 / 3


@pytest.fixture
def narrow(make_world: Callable[..., World], hurry: None) -> Iterator[Replicas]:
    """Two replicas that take 30,000 bytes a request."""
    made = Replicas(make_world(max_operator_bytes=30_000))
    made.start()
    made.start()
    yield made
    made.stop_all()


HEAVY = Files({str(n): picture(10 + 20 * n).ljust(6000, b"\0") for n in range(8)})
"""Of 8,000 bytes in base64: what follows a PNG's end is not looked at."""


def test_a_batch_too_long_for_one_request_is_asked_in_several(
    narrow: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "MAX_IMAGE_BYTES", 19_000)
    pairs = [(str(n), str(n + 1)) for n in range(7)]
    votes: dict[int, ExactVotes] = {}
    with narrow.workers() as workers:
        assert ask(workers, narrow.first.first, files=HEAVY) == EXPECTED
        assert (narrow.asked(0), narrow.asked(1)) == (4, 4)
        vote = partial(workers.asynchronous.exact_votes, version=narrow.first.first)
        workers.call(vote, pairs, HEAVY, votes.__setitem__)
    assert sorted(votes) == list(range(7))
    assert all(vote.forward.second > vote.forward.first for vote in votes.values())


def test_a_request_that_the_service_never_takes_is_refused_at_once(narrow: Replicas) -> None:
    with narrow.workers() as workers, pytest.raises(ServiceError, match="413 body_too_large"):
        ask(workers, narrow.first.first, files=HEAVY)
    assert narrow.said == []


def sent(replicas: Replicas, number: int) -> tuple[list[str], list[str]]:
    """The files that a replica gets from now on, and the digests that stand for files."""
    files: list[str] = []
    digests: list[str] = []
    kept = replicas.worlds[number].service.decoder.kept
    resolved = kept.resolved

    def note(sources: Sequence[bytes | str]) -> list[bytes | str]:
        for source in map(str, sources):
            (digests if source.startswith("sha256:") else files).append(source)
        return resolved(sources)

    kept.resolved = note
    return files, digests


COMPARED = [RolloutPrompt(task="compare", images=[a, b], samples=2, seed=1) for a, b in permutations("0123", 2)]


def test_a_picture_is_sent_once_to_a_replica_however_many_requests_show_it_at_the_same_time(
    make_world: Callable[..., World], hurry: None
) -> None:
    replicas = Replicas(make_world(max_num_seqs=2))
    try:
        replicas.start()
        files, digests = sent(replicas, 0)
        with replicas.workers() as workers:
            for _ in range(2):
                assert len(workers.rollouts(COMPARED, PICTURES, version=replicas.first.first)) == 12
        assert len(files) == len(set(files)) == 4
        assert len(digests) == 2 * 2 * 12 - 4
    finally:
        replicas.stop_all()


@pytest.mark.parametrize("mib", [0, 1])
def test_files_that_the_service_lost_are_sent_again(
    make_world: Callable[..., World], hurry: None, mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = Replicas(make_world(max_num_seqs=2, kept_images_mib=mib))
    large = Files({name: file.ljust(600_000, b"\0") for name, file in PICTURES.files.items()})  # the room is for one
    try:
        replicas.start()
        with replicas.workers() as workers:
            for _ in range(2):
                assert len(workers.rollouts(COMPARED, large, version=replicas.first.first)) == 12
            assert ask(workers, replicas.first.first, files=large) == EXPECTED
        assert replicas.said == []
    finally:
        replicas.stop_all()


def test_of_a_broken_answer_only_the_rest_is_asked_again(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas.stop(1)
    breaks = cut_after(3, monkeypatch)
    with replicas.workers() as workers:
        assert ask(workers, replicas.first.first) == EXPECTED
    assert breaks == [1]
    assert [sampling.seed for _, sampling, *_ in replicas.worlds[0].engine.asked] == [*range(8), *range(2, 8)]


def test_a_swap_that_fails_costs_only_the_answers_that_were_under_way(
    make_world: Callable[..., World], hurry: None
) -> None:
    replicas = Replicas(make_world(sequences_beside_users=1))
    try:
        replicas.start()
        world = replicas.worlds[0]
        told: list[int] = []
        world.engine.bad_weights = {world.second}
        world.engine.held = gate = Gate(passing=3)

        def swap() -> None:
            while world.engine.running != 1 or len(told) < 3:
                time.sleep(0.005)
            with Client(replicas.urls[0], KEY) as operators, pytest.raises(ServiceError, match="load_failed"):
                operators.promote(world.second)

        def open_gate() -> None:
            while not world.engine.loaded:  # the swap did not wait for the answer
                time.sleep(0.005)
            gate.set()

        with replicas.workers() as workers, world.service.rollouts._traffic.user(), ThreadPoolExecutor(2) as beside:
            running = [beside.submit(swap), beside.submit(open_gate)]
            results = workers.rollouts(PROMPTS, PICTURES, version=world.first, advance=told.append)
            for one in running:
                one.result()
        assert scores(results) == EXPECTED
        rollouts = [asked for asked in world.engine.asked if asked[3] == 10]
        assert len(rollouts) == 8 + 1
        assert replicas.said == []
    finally:
        replicas.stop_all()


def test_long_answers_are_asked_one_by_one_with_the_same_seeds_and_come_back_together(
    make_world: Callable[..., World], hurry: None
) -> None:
    replicas = Replicas(make_world(profile="evoquality"))
    try:
        replicas.start()
        replicas.worlds[0].engine.answer = lambda prompt, sampling, index: f"{sampling.seed + index}"
        prompts = [RolloutPrompt(task="score", images=["0"], samples=3, seed=seed) for seed in (10, 20)]
        heard: list[int] = []
        with replicas.workers() as workers:
            results = workers.rollouts(prompts, PICTURES, version=replicas.first.first, advance=heard.append)
        texts = [[completion.text for completion in result.completions] for result in results]
        assert texts == [["10", "11", "12"], ["20", "21", "22"]]
        assert {sampling.n for _, sampling, *_ in replicas.worlds[0].engine.asked} == {1}
        assert sum(heard) == 2
    finally:
        replicas.stop_all()


def test_an_engine_gets_no_more_than_keeps_it_full(make_world: Callable[..., World], hurry: None) -> None:
    replicas = Replicas(make_world(max_num_seqs=4))
    try:
        replicas.start()
        engine, most = replicas.worlds[0].engine, []
        generate = engine.generate

        async def noting(*args: Any, **kwargs: Any) -> Any:
            most.append(engine.running + 1)
            return await generate(*args, **kwargs)

        engine.generate, engine.seconds = noting, 0.002
        prompts = [RolloutPrompt(task="score", images=["0"], samples=1, seed=seed) for seed in range(60)]
        with replicas.workers() as workers:
            workers.rollouts(prompts, PICTURES, version=replicas.first.first)
        assert 4 <= max(most) <= 1.5 * 4 + 3
    finally:
        replicas.stop_all()


@pytest.mark.parametrize(("sequences", "tokens", "engine", "replicas", "expected"), [
    ([1] * 8, 6, 64, 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ([12] * 6, 6, 24, 1, [[0, 1], [2, 3], [4, 5]]),
    ([1] * 5, 10_000, 64, 1, [[0], [1], [2], [3], [4]]),
    ([64, 64], 1024, 8, 3, [[0], [1]]),
    ([], 6, 64, 2, []),
])  # fmt: skip
def test_a_request_holds_what_an_engine_takes_a_replicas_share_and_few_tokens(
    sequences: list[int], tokens: int, engine: int, replicas: int, expected: list[list[int]]
) -> None:
    assert parts(sequences, tokens, engine, replicas) == expected
