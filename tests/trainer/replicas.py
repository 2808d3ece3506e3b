"""Replicas of the service on one store: the HTTP layer is real, only the engines behind it have no model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from service.app import create_service
from tests.service.conftest import KEY, World, served
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

    def start(self, number: int | None = None) -> int:
        """A new replica, or one again, as new, on its old ports."""
        known = number is not None and number < len(self.urls)
        store, version = self.first.store, self.first.store.active().version
        engine = FakeEngine(version)
        service = create_service(self.first.settings, KEY, engine, store, store.info(version))
        world = World(service, engine, store, self.first.first, self.first.second, self.first.settings)
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

    def workers(self, patience: float = 20) -> Workers:
        return Workers(self.urls, KEY, self.first.store, patience, self.said.append)

    def asked(self, number: int) -> int:
        return len(self.worlds[number].engine.asked)
