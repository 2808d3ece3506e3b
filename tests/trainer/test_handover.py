"""Weights on their way to rollout engines: the HTTP layer is real, the engines behind it have no model."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evoquality import ServiceError
from tests.service.conftest import World
from tests.trainer.replicas import EXPECTED, Replicas, ask
from trainer.errors import DiskFull
from trainer.training.handover import WeightsHandover
from trainer.workers.workers import Workers


class Weights:
    """A policy of the world's two tensors."""

    def __init__(self, value: float) -> None:
        self._value = value

    def hand_over(self, directory: Path) -> None:
        directory.mkdir()
        weights = {"a.weight": np.full((4, 3), self._value, np.float32), "b.bias": np.zeros(3, np.float32)}
        save_file(weights, directory / "model.safetensors")


class TooLarge(Weights):
    """One that the disk has no room for."""

    def hand_over(self, directory: Path) -> None:
        super().hand_over(directory)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def engines(make_world: Callable[..., World], hurry: None) -> Iterator[Replicas]:
    """Two rollout engines over one store."""
    made = Replicas(make_world(role="rollout"))
    made.start()
    made.start()
    yield made
    made.stop_all()


@pytest.fixture
def way(engines: Replicas) -> Iterator[WeightsHandover]:
    with Workers(engines.urls, "the key", engines.first.store, 20, engines.said.append, overwritten=True) as workers:
        yield WeightsHandover(workers, engines.first.settings.handover_folder, "run")


def roll_out(way: WeightsHandover, version: str) -> list[float]:
    return ask(way.workers, version)


def test_every_engine_answers_with_the_weights_of_the_step(engines: Replicas, way: WeightsHandover) -> None:
    for step in range(3):
        with way.served(Weights(step), f"s{step}") as served:
            assert roll_out(way, served.version) == EXPECTED
            assert [world.engine.version for world in engines.worlds] == [served.version] * 2


def test_an_engine_that_was_restarted_is_overwritten_again(engines: Replicas, way: WeightsHandover) -> None:
    with way.served(Weights(0), "s0") as served:
        roll_out(way, served.version)
        for number in (0, 1):
            engines.stop(number)
            engines.start(number)
        assert engines.worlds[0].engine.version == engines.first.first
        assert roll_out(way, served.version) == EXPECTED


def test_only_the_last_weights_stay_in_the_folder_and_what_others_have_there(
    engines: Replicas, way: WeightsHandover
) -> None:
    folder = engines.first.settings.handover_folder
    others = {"another-s0-1", "photos"}
    for name in others:
        (folder / name).mkdir(parents=True)
    with way.served(Weights(0), "s0") as first:
        roll_out(way, first.version)
    with way.served(Weights(1), "s1") as second:
        assert {path.name for path in folder.iterdir()} == {first.version, second.version, *others}
        roll_out(way, second.version)
    assert {path.name for path in folder.iterdir()} == {second.version, *others}


def test_a_full_disk_is_not_left_fuller(engines: Replicas, way: WeightsHandover) -> None:
    with pytest.raises(DiskFull), way.served(TooLarge(0), "s0"):
        pass
    assert not list(engines.first.settings.handover_folder.iterdir())


def test_weights_that_are_not_finite_end_the_step_and_those_before_answer(
    engines: Replicas, way: WeightsHandover
) -> None:
    with way.served(Weights(0), "s0") as good:
        roll_out(way, good.version)
    with pytest.raises(ServiceError, match="not_finite"), way.served(Weights(np.nan), "s1") as bad:
        roll_out(way, bad.version)
    assert roll_out(way, good.version) == EXPECTED


def test_a_serving_engine_named_by_mistake_is_told(make_world: Callable[..., World], hurry: None) -> None:
    serving = Replicas(make_world())
    serving.start()
    try:
        with Workers(serving.urls, "the key", serving.first.store, 5, serving.said.append, overwritten=True) as workers:
            way = WeightsHandover(workers, serving.first.settings.handover_folder, "run")
            with pytest.raises(ServiceError, match="--role rollout"), way.served(Weights(0), "s0") as served:
                roll_out(way, served.version)
    finally:
        serving.stop_all()
