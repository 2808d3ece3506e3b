"""Promotion and rollback: new weights in a running engine, no request lost, no answer of two versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from service.configuration.settings import Settings
from service.contract import SwapResponse, VersionInfo
from service.engine.canary import readable_share
from service.engine.protocol import Engine
from service.errors import EngineDead, ServiceError, VersionError
from service.observability import metrics
from service.prompts import PROFILES
from service.versions.adapters import Adapters
from service.versions.gate import VersionGate
from service.versions.preflight import check_weights
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

    async def _promote(self, version: str) -> SwapResponse:
        if version == self._gate.version.id:
            active = self._store.activate(version)
            return SwapResponse(version=version, previous=active.previous, blackout_ms=0, drain_ms=0, reload_ms=0)
        try:
            info = await asyncio.to_thread(self._preflight, version)
            response = await self._swap(info)
        except ServiceError as refusal:
            metrics.swaps.labels("refused").inc()
            log.warning("version %s refused: %s", version, refusal)
            raise
        metrics.swaps.labels("done").inc()
        metrics.swap_blackout_seconds.observe(response.blackout_ms / 1000)
        log.info("swapped to %s, gate closed for %.0f ms", version, response.blackout_ms)
        return response

    def _preflight(self, version: str) -> VersionInfo:
        self._store.verify(version)
        check_weights(self._store.path(version), self._store.path(self._gate.version.id))
        return self._store.info(version)

    async def _swap(self, info: VersionInfo) -> SwapResponse:
        closing = perf_counter()
        async with self._gate.closed(self._settings.drain_seconds):
            drained = perf_counter()
            reloaded = await self._load_or_restore(info)
            active = self._store.activate(info.id)
            self._adapters.forget_all()
            self._forget_answers()
            self._gate.version = info
            metrics.set_version(self._settings.model_name, info.id)
            opening = perf_counter()
        return SwapResponse(
            version=active.version,
            previous=active.previous,
            blackout_ms=(opening - closing) * 1000,
            drain_ms=(drained - closing) * 1000,
            reload_ms=(reloaded - drained) * 1000,
        )

    async def _load_or_restore(self, info: VersionInfo) -> float:
        """Loads and tries a version; whatever goes wrong, the old one answers again before the gate opens.

        Returns when the weights were in place.
        """
        try:
            await self._engine.pause()
            await self._engine.reload(self._store.path(info.id), info.id)
            reloaded = perf_counter()
            await self._engine.resume()
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
        old = self._gate.version.id
        try:
            await self._engine.pause()
            await self._engine.reload(self._store.path(old), old)
            await self._engine.resume()
            self._adapters.forget_all()
        except Exception as failure:
            log.exception("the previous weights could not be restored")
            self._engine.shutdown()
            raise EngineDead("Neither the new nor the previous weights could be loaded.") from failure
