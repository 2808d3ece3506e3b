"""Replicas of the service on one store: the HTTP layer is real, only the engines behind it have no model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from evoquality import encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest
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


def batch(replicas: Replicas, prompts: int = 8, adapter: str | None = None) -> RolloutRequest:
    """Prompts over pictures of different brightness, which the engines' scores follow."""
    images = {str(n): encode_image(picture(10 + 20 * n)) for n in range(prompts)}
    asked = [RolloutPrompt(task="score", images=[str(n)], samples=1, seed=n) for n in range(prompts)]
    return RolloutRequest(images=images, prompts=asked, version=replicas.first.first, adapter=adapter)


def scores(response: object) -> list[float]:
    return [float(result.completions[0].text) for result in response.results]  # type: ignore[attr-defined]


EXPECTED = [round(1 + 4 * (10 + 20 * n) / 255, 2) for n in range(8)]
