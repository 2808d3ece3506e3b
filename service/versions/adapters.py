"""Adapters loaded beside the active version. Their names are never reused, and their users are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from evoquality.contract import AdapterResponse
from service.concurrency import file_work
from service.engine.protocol import Adapter, Engine
from service.errors import UnknownAdapter
from service.versions.preflight import check_adapter
from service.versions.store import VersionStore
from service.versions.swap_lock import SwapLock
from service.versions.writing import written


class _Loaded:
    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.users = 0
        self.unused = asyncio.Event()
        self.unused.set()


class Adapters:
    """Adapters belong to the version on which they were loaded. A swap forgets them all."""

    def __init__(self, engine: Engine, store: VersionStore, swap_lock: SwapLock, max_rank: int) -> None:
        self._engine = engine
        self._store = store
        self._swap_lock = swap_lock
        self._max_rank = max_rank
        self._loaded: dict[str, _Loaded] = {}

    async def load(self, name: str) -> AdapterResponse:
        """Loads `<store>/adapters/<name>`.

        Raises UnknownAdapter, AdapterNameUsed, AdapterRefused, LinkInStore, StoreFailure. A refused adapter's name
        counts as used.
        """
        with written():
            adapter = await file_work(self._checked, name)
        async with self._swap_lock.shared():
            await self._engine.load_adapter(adapter)
            self._loaded[name] = _Loaded(adapter)
        return AdapterResponse(name=name, id=adapter.id)

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Adapter | None]:
        """Keeps an adapter from being removed until the block ends; None stands for the version itself.

        Raises UnknownAdapter: a name the engine does not know must never reach it.
        """
        if name is None:
            yield None
            return
        loaded = self._get(name)
        loaded.users += 1
        loaded.unused.clear()
        try:
            yield loaded.adapter
        finally:
            loaded.users -= 1
            if loaded.users == 0:
                loaded.unused.set()

    async def remove(self, name: str) -> None:
        """Refuses new requests at once, waits for running ones, then unloads and deletes the directory.

        A directory in a read-only store stays; its writer must delete it.

        Raises UnknownAdapter.
        """
        loaded = self._get(name)
        del self._loaded[name]
        await loaded.unused.wait()
        async with self._swap_lock.shared():
            await self._engine.unload_adapter(loaded.adapter)
        await file_work(self._store.delete_adapter, name)

    def forget_all(self) -> None:
        """Forgets all adapters after a swap: the engine dropped them, and they belong to other weights."""
        self._loaded.clear()

    def list(self) -> Sequence[AdapterResponse]:
        """The adapters that requests may name."""
        return [AdapterResponse(name=name, id=loaded.adapter.id) for name, loaded in self._loaded.items()]

    def _checked(self, name: str) -> Adapter:
        path = self._store.adapter_path(name)
        check_adapter(path, self._max_rank)
        return Adapter(name, self._store.new_adapter_id(name), path)

    def _get(self, name: str) -> _Loaded:
        if name not in self._loaded:
            raise UnknownAdapter("No adapter of this name is loaded.")
        return self._loaded[name]
