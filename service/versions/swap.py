"""Promotion, rollback and overwriting: new weights in a running engine, no request lost, no answer of two versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from service.configuration.settings import Settings
from service.contract import SwapResponse, VersionInfo
from service.engine.canary import readable_share
from service.engine.protocol import Engine
from service.errors import EngineDead, ServiceError, VersionError
from service.observability import metrics
from service.prompts import PROFILES
from service.versions import refusals
from service.versions.adapters import Adapters
from service.versions.gate import VersionGate
from service.versions.handover import handed_over
from service.versions.preflight import check_tensors, check_weights
from service.versions.store import VersionStore

log = logging.getLogger(__name__)


class Swapper:
    """Changes the version behind the gate, one change at a time."""

    def __init__(
        self,
        engine: Engine,
        store: VersionStore,
        gate: VersionGate,
        adapters: Adapters,
        forget_answers: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._store = store
        self._gate = gate
        self._adapters = adapters
        self._forget_answers = forget_answers
        self._settings = settings
        self._loaded = self._base = store.path(gate.version.id)
        self._one_at_a_time = asyncio.Lock()

    async def promote(self, version: str) -> SwapResponse:
        """Makes `version` the one that serves; one that serves already is left alone.

        Raises UnknownVersion, VersionError (the old version goes on serving), DrainTimeout, EngineDead.
        """
        async with self._one_at_a_time:
            return await self._promote(version)

    async def rollback(self) -> SwapResponse:
        """Promotes the previous version. Raises as `promote` does; UnknownVersion if there is none."""
        async with self._one_at_a_time:
            return await self._promote(self._store.previous())

    async def overwrite(self, name: str) -> SwapResponse:
        """Takes the weights that the trainer handed over under `name`, which is the version from now on.

        No canary has to be answered and ACTIVE does not move: what trains need not be fit to serve. The weights
        loaded before must lie where they were until this has succeeded.
        Raises UnknownWeights, VersionError (the old weights answer on), DrainTimeout, EngineDead.
        """
        async with self._one_at_a_time:
            if name == self._gate.version.id:
                return _unchanged(name, None)
            return await _counted(name, self._overwrite(name))

    async def _overwrite(self, name: str) -> SwapResponse:
        path = handed_over(self._settings.handover_folder, name)
        await asyncio.to_thread(check_tensors, path, self._base)
        info = self._gate.version.model_copy(
            update={"id": name, "created": datetime.now(UTC), "origin": "handed over", "metrics": {}}
        )
        return await self._swap(info, path)

    async def _promote(self, version: str) -> SwapResponse:
        if version == self._gate.version.id:
            return _unchanged(version, self._store.activate(version).previous)
        return await _counted(version, self._promote_another(version))

    async def _promote_another(self, version: str) -> SwapResponse:
        info = await asyncio.to_thread(self._preflight, version)
        return await self._swap(info, self._store.path(version))

    def _preflight(self, version: str) -> VersionInfo:
        self._store.verify(version)
        if reason := refusals.reason(self._store, version):
            raise VersionError("refused", f"{reason}. Remove its mark in the store's folder `refused` to allow it")
        check_weights(self._store.path(version), self._loaded)
        return self._store.info(version)

    async def _swap(self, info: VersionInfo, path: Path) -> SwapResponse:
        closing = perf_counter()
        async with self._gate.closed(self._settings.drain_seconds):
            drained = perf_counter()
            reloaded = await self._load_or_restore(info, path)
            previous = self._publish(info)
            self._loaded = path
            self._adapters.forget_all()
            self._forget_answers()
            self._gate.version = info
            metrics.set_version(self._settings.model_name, info.id)
            opening = perf_counter()
        return SwapResponse(
            version=info.id,
            previous=previous,
            blackout_ms=(opening - closing) * 1000,
            drain_ms=(drained - closing) * 1000,
            reload_ms=(reloaded - drained) * 1000,
        )

    def _publish(self, info: VersionInfo) -> str | None:
        """Moves ACTIVE, which is not a rollout engine's to move. Returns the version before."""
        if self._settings.role == "rollout":
            return self._gate.version.id
        return self._store.activate(info.id).previous

    async def _load_or_restore(self, info: VersionInfo, path: Path) -> float:
        """Loads and tries a version; whatever goes wrong, the old one answers again before the gate opens.

        Returns when the weights were in place.
        """
        try:
            await self._engine.pause()
            await self._engine.reload(path, info.id)
            reloaded = perf_counter()
            await self._engine.resume()
            if self._settings.role == "serve":
                await self._check_canaries(info)
            return reloaded
        except EngineDead:
            raise
        except BaseException as failure:
            await asyncio.shield(self._restore())
            if isinstance(failure, VersionError):
                raise
            if isinstance(failure, Exception):
                raise VersionError("load_failed", "the engine could not load the weights") from failure
            raise

    async def _check_canaries(self, info: VersionInfo) -> None:
        share = await readable_share(self._engine, PROFILES[info.profile])
        if share < self._settings.canary_min_readable:
            raise VersionError("unreadable_canaries", f"only {share:.0%} of the canary answers were readable")
        metrics.canary_readable.set(share)

    async def _restore(self) -> None:
        """Puts the previous weights back. If that fails too, the engine is given up."""
        try:
            await self._engine.pause()
            await self._engine.reload(self._loaded, self._gate.version.id)
            await self._engine.resume()
            self._adapters.forget_all()
        except Exception as failure:
            log.exception("the previous weights could not be restored")
            self._engine.shutdown()
            raise EngineDead("Neither the new nor the previous weights could be loaded.") from failure


async def _counted(version: str, swap: Coroutine[Any, Any, SwapResponse]) -> SwapResponse:
    """Logs a swap and counts how it ended."""
    try:
        response = await swap
    except ServiceError as refusal:
        metrics.swaps.labels("refused").inc()
        log.warning("version %s refused: %s", version, refusal)
        raise
    metrics.swaps.labels("done").inc()
    metrics.swap_blackout_seconds.observe(response.blackout_ms / 1000)
    log.info("swapped to %s, gate closed for %.0f ms", version, response.blackout_ms)
    return response


def _unchanged(version: str, previous: str | None) -> SwapResponse:
    return SwapResponse(version=version, previous=previous, blackout_ms=0, drain_ms=0, reload_ms=0)
