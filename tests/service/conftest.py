"""A service around a fake engine, over a real version store in a temporary folder."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from safetensors.numpy import save_file

from evoquality.contract import VersionInfo
from service.api.service import Service, create_service
from service.app import create_app, create_operator_app
from service.configuration.settings import Settings
from service.images.decoder import Picture
from service.images.shares import Queue
from service.images.workers import write_pixels
from service.versions.store import VersionStore
from tests.service.declared import only_declared
from tests.service.fake_engine import FakeEngine
from tests.service.loop import elsewhere, never_blocked

KEY = "the key"
LARGE_SIDE = 1100
"""Of a picture that is not decoded while its header is read."""


@dataclass
class World:
    """A service, its engine, and two versions of which the first is active."""

    service: Service
    engine: FakeEngine
    store: VersionStore
    first: str
    second: str
    settings: Settings

    @cached_property
    def public_app(self) -> FastAPI:
        return elsewhere(create_app, self.service)

    @cached_property
    def operator_app(self) -> FastAPI:
        return elsewhere(create_operator_app, self.service)

    @asynccontextmanager
    async def public(self) -> AsyncIterator[httpx.AsyncClient]:
        async with _client(self.public_app) as client:
            yield client

    @asynccontextmanager
    async def operators(self, key: str | None = KEY) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        async with _client(self.operator_app, headers=headers) as client:
            yield client


def _client(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    """Every answer it gets must be in the application's OpenAPI document."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    hooks = {"response": [only_declared(app)]}
    return httpx.AsyncClient(transport=transport, base_url="http://test", event_hooks=hooks, **options)


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[VersionInfo]]]:
    """A store with two versions, the first active, made once for each profile: versions are forced to the disk."""

    @cache
    def stock(profile: str) -> tuple[Path, list[VersionInfo]]:
        folder = tmp_path_factory.mktemp("stocked")
        store = VersionStore(folder / "store")
        sources = [checkpoint(folder / f"source-{seed}", seed) for seed in (1, 2)]
        versions = [store.add(source, parent=None, profile=profile, origin="test") for source in sources]
        store.activate(versions[0].id)
        return store.root, versions

    return stock


@pytest.fixture
def make_world(tmp_path: Path, stocked: Callable[[str], tuple[Path, list[VersionInfo]]]) -> Callable[..., World]:
    """Builds a world with settings of its own, and a store of its own."""

    def build(settings: dict[str, Any]) -> World:
        chosen = Settings(store=tmp_path / "store", **settings)
        stock, (first, second) = stocked(chosen.profile)
        shutil.copytree(stock, chosen.store)
        store = VersionStore(chosen.store)
        engine = FakeEngine(first.id)
        service = create_service(chosen, KEY, engine, store, first)
        return World(service, engine, store, first.id, second.id, chosen)

    return lambda **settings: elsewhere(build, settings)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@dataclass
class Listening:
    world: World
    url: str
    operator_url: str

    @property
    def operators(self) -> httpx.Client:
        return httpx.Client(base_url=self.operator_url, headers={"Authorization": f"Bearer {KEY}"})


@pytest.fixture
def make_listening(make_world: Callable[..., World]) -> Iterator[Callable[..., Listening]]:
    """Serves worlds with settings of their own, both applications on free ports of this machine."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(served(make_world(**settings)))


@pytest.fixture
def listening(make_listening: Callable[..., Listening]) -> Listening:
    return make_listening()


@contextmanager
def served(world: World, ports: tuple[int, int] = (0, 0)) -> Iterator[Listening]:
    """Both applications of a world on this machine, on free ports unless some are given."""
    servers = [
        uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
        for app, port in zip((world.public_app, world.operator_app), ports, strict=True)
    ]

    async def serve() -> None:
        follower = world.service.follower
        following = asyncio.create_task(follower.follow()) if follower else None
        await asyncio.gather(*(server.serve() for server in servers))
        if following:
            following.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    while not all(server.started for server in servers):
        time.sleep(0.001)
    bound = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
    try:
        yield Listening(world, *(f"http://127.0.0.1:{port}" for port in bound))
    finally:
        for server in servers:
            server.should_exit = True
        thread.join()


@pytest.fixture
def store(tmp_path: Path, stocked) -> VersionStore:
    """Two versions, the first active."""
    shutil.copytree(stocked("plain")[0], tmp_path / "store")
    return VersionStore(tmp_path / "store")


@pytest.fixture
def versions(stocked) -> list[str]:
    """The ids of the versions in `store`."""
    return [info.id for info in stocked("plain")[1]]


@pytest.fixture(autouse=True)
def loop_is_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    has_own_pace = request.path.stem == "test_page" or request.node.get_closest_marker("own_pace")
    with nullcontext() if has_own_pace else never_blocked():
        yield


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end, with a limit: a test that hangs is a test that fails."""
    return lambda coroutine: asyncio.run(asyncio.wait_for(coroutine, 60))


def checkpoint(path: Path, seed: int) -> Path:
    """Something that looks like a checkpoint to the store: two tensors and a configuration."""
    path.mkdir(parents=True)
    values = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    save_file({"a.weight": values, "b.bias": values[0].copy()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "tiny", "transformers_version": str(seed)}))
    return path


def adapter(path: Path, rank: int = 2) -> Path:
    """Something that looks like a PEFT adapter."""
    path.mkdir(parents=True)
    prefix = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    tensors = {
        f"{prefix}.lora_A.weight": np.zeros((rank, 3), np.float32),
        f"{prefix}.lora_B.weight": np.zeros((4, rank), np.float32),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"r": rank, "peft_type": "LORA"}))
    return path


def picture(brightness: int = 128, side: int = 32, kind: str = "PNG", **options: Any) -> bytes:
    """A grey picture as a file's bytes."""
    return encoded(Image.new("RGB", (side, side), (brightness,) * 3), kind, **options)


def opened(image: Image.Image) -> Picture:
    """A decoded picture as if it had come in a request."""

    async def pixels() -> Image.Image:
        return image

    return Picture(hashlib.sha256(image.tobytes()).hexdigest(), 4 * image.width * image.height, pixels)


def decodes(world: World, note: Callable[[], Any] = lambda: None) -> list[Any]:
    """A list that gets an entry for every picture that is decoded by itself, as large ones are."""
    found: list[Any] = []
    plain = world.service.decoder.run

    async def run(queue: Queue, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is write_pixels:
            found.append(note())
        return await plain(queue, function, *arguments)

    world.service.decoder.run = run  # type: ignore[method-assign]
    return found


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
