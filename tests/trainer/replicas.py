"""Replicas of the service on one store: the HTTP layer is real, only the engines behind it have no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from evoquality.contract import RolloutPrompt, RolloutResult
from service.api.service import create_service
from tests.service.conftest import KEY, World, picture, served
from tests.service.fake_engine import FakeEngine
from trainer.workers.workers import Workers


@dataclass
class Replicas:
    """Services over one store, each with an engine of its own; any can be stopped and started again."""

    first: World
    worlds: list[World] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _running: dict[int, ExitStack] = field(default_factory=dict)

    def start(self, number: int | None = None, **settings: object) -> int:
        """A new replica, with settings of its own; or one again, as new, on its old ports."""
        known = number is not None and number < len(self.urls)
        store, version = self.first.store, self.first.store.active().version
        engine = FakeEngine(version)
        chosen = self.first.settings.model_copy(update=settings)
        service = create_service(chosen, KEY, engine, store, store.info(version))
        world = World(service, engine, store, self.first.first, self.first.second, chosen)
        number = len(self.worlds) if number is None else number
        ports = (0, urlsplit(self.urls[number]).port) if known else (0, 0)
        stack = ExitStack()
        listening = stack.enter_context(served(world, ports))
        self._running[number] = stack
        if known:
            self.worlds[number] = world
        else:
            self.worlds.append(world)
            self.urls.append(listening.operator_url)
        return number

    def stop(self, number: int) -> None:
        if stack := self._running.pop(number, None):
            stack.close()

    def stop_all(self) -> None:
        for number in list(self._running):
            self.stop(number)

    def workers(self, patience: float = 60, say: Callable[[str], object] | None = None) -> Workers:
        return Workers(self.urls, KEY, self.first.store, patience, say or self.said.append)

    def asked(self, number: int) -> int:
        return len(self.worlds[number].engine.asked)


@dataclass(frozen=True)
class Files:
    """Pictures of different brightness, which the engines' scores follow."""

    files: dict[str, bytes]

    def bytes_of(self, image_id: str) -> bytes:
        return self.files[image_id]

    def fingerprint(self, image_id: str) -> tuple[str, int]:
        return hashlib.sha256(self.files[image_id]).hexdigest(), len(self.files[image_id])


PICTURES = Files({str(n): picture(10 + 20 * n) for n in range(8)})
PROMPTS = [RolloutPrompt(task="score", images=[str(n)], samples=1, seed=n) for n in range(8)]


def ask(
    workers: Workers, version: str, prompts: Sequence[RolloutPrompt] = PROMPTS, files: Files = PICTURES, **more: object
) -> list[float]:
    """The scores of the first answers to all prompts."""
    return scores(workers.rollouts(prompts, files, version=version, **more))


def scores(results: list[RolloutResult]) -> list[float]:
    return [float(result.completions[0].text) for result in results]


EXPECTED = [round(1 + 4 * (10 + 20 * n) / 255, 2) for n in range(8)]
