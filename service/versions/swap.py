"""Promotion, rollback and overwriting: swaps the weights of a running engine without losing or mixing any answer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from evoquality.contract import SwapResponse, VersionInfo
from service.concurrency import file_work
from service.configuration.settings import Settings
from service.engine.protocol import Engine
from service.errors import EngineDead, NotActive, PointerFailure, ProblemError, UserError, VersionError
from service.observability import metrics
from service.prompts import PROFILES
from service.versions.adapters import Adapters
from service.versions.canaries import Canaries
from service.versions.contents import check_unchanged, hashes
from service.versions.preflight import check_candidate, check_tensors, form, handed_over
from service.versions.store import VersionStore
from service.versions.swap_lock import SwapLock

_MOVED = (
    "Somebody moved the store's pointer: it names {named}, while {serving} serves here. Promote {named} here, or "
    "restart this service, to agree with it. Services that share a store are started with --follow."
)
_MOVE_POINTER = (
    "This replica follows the store's pointer: move that (`evoquality versions promote --store`, `rollback --store`)."
)

log = logging.getLogger(__name__)


class Swapper:
    """Changes the serving version, one swap at a time.

    What serves is known by the hashes of its files, and by its form at the start: the files may change on the disk.
    """

    def __init__(
        self,
        engine: Engine,
        store: VersionStore,
        swap_lock: SwapLock,
        adapters: Adapters,
        forget_answers: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._store = store
        self._swap_lock = swap_lock
        self._adapters = adapters
        self._forget_answers = forget_answers
        self._settings = settings
        self.canaries = Canaries(engine, store)
        self._loaded = store.path(swap_lock.version.id)
        self._files: Mapping[str, str] = store.manifest(swap_lock.version.id).files
        self._form = form(self._loaded)
        self._knows_canaries = True
        self._one_at_a_time = asyncio.Lock()

    @property
    def parameters(self) -> int:
        """Of the model that serves, and of every version that can replace it."""
        return sum(math.prod(tensor.shape) for tensor in self._form.tensors.values())

    async def promote(self, version: str) -> SwapResponse:
        """Makes `version` the serving one; does nothing if it serves already.

        Raises UnknownVersion, VersionError (the old version keeps serving), DrainTimeout, EngineDead; NotActive if this
        replica follows the store's pointer, which names another version; ReadOnlyStore and PointerFailure if the
        pointer cannot be moved.
        """
        async with self._one_at_a_time:
            return await self._promote(version)

    async def rollback(self) -> SwapResponse:
        """Promotes the previous version. Raises as `promote`; UnknownVersion if there is none."""
        async with self._one_at_a_time:
            if self._settings.follow:
                raise NotActive(_MOVE_POINTER)
            return await self._promote(await file_work(self._store.previous))

    async def overwrite(self, name: str) -> SwapResponse:
        """Loads the weights that the trainer handed over under `name`, which becomes the version.

        Canaries are not asked and ACTIVE does not move, since weights under training need not be fit to serve. Keep the
        files of the previous weights until this has succeeded.
        Raises UnknownWeights, VersionError (the old weights keep answering), DrainTimeout, EngineDead.
        """
        async with self._one_at_a_time:
            if name == self._swap_lock.version.id:
                return _unchanged(name, None)
            return await _counted(name, self._overwrite(name))

    async def _overwrite(self, name: str) -> SwapResponse:
        path, files = await file_work(self._handed_over, name)
        info = self._swap_lock.version.model_copy(
            update={"id": name, "created": datetime.now(UTC), "origin": "handed over", "metrics": {}}
        )
        return await _to_its_end(self._swap(info, path, files, try_canaries=False))

    def _handed_over(self, name: str) -> tuple[Path, Mapping[str, str]]:
        """The folder of checked weights, and its files' hashes."""
        if not self._settings.handover:
            self._store.within("handover")
        path = handed_over(self._settings.handover_folder, name)
        check_tensors(path, self._form)
        return path, hashes(path)

    async def _promote(self, version: str) -> SwapResponse:
        await self._check_pointer(version)
        if version == self._swap_lock.version.id:
            return _unchanged(version, await file_work(self._publish, version))
        return await _counted(version, self._promote_another(version))

    async def _promote_another(self, version: str) -> SwapResponse:
        info, path, files = await file_work(self._candidate, version)
        await self._check_pointer(version)  # it may have moved while the files were read
        return await _to_its_end(self._swap(info, path, files, try_canaries=True))

    def _candidate(self, version: str) -> tuple[VersionInfo, Path, Mapping[str, str]]:
        """A checked version, its folder, and its files' hashes."""
        info = check_candidate(self._store, version, self._form)
        try:
            self._engine.pixel_limits(PROFILES[info.profile])
        except UserError as reason:
            raise VersionError("no_room", f"{reason}") from None
        self._check_way_back(version)
        return info, self._store.path(version), self._store.manifest(version).files

    def _check_way_back(self, version: str) -> None:
        """Refuses to try a version if those weights that answer could not be restored; a rollback is always tried."""
        pointer = self._store.pointer() if self._settings.moves_pointer else None
        if pointer is None or version in (pointer.version, pointer.previous):
            return
        try:
            check_unchanged(self._loaded, self._files)
        except VersionError as damage:
            raise VersionError(
                "no_way_back",
                f"the serving version could not be restored if this one failed ({damage.detail}): mend its files, or "
                "roll back",
            ) from None

    async def _check_pointer(self, version: str) -> None:
        """Raises NotActive if the pointer names another version and is followed, or was moved by somebody else;
        ReadOnlyStore if it cannot be moved."""
        if self._settings.role == "rollout":
            return
        if self._settings.moves_pointer:
            await file_work(self._store.check_writable)
        active = await file_work(self._store.pointer)
        named, serving = active.version if active else None, self._swap_lock.version.id
        if self._settings.follow and named != version:
            raise NotActive(_MOVE_POINTER)
        if named not in {None, version, serving}:
            raise NotActive(_MOVED.format(named=named, serving=serving))

    async def _swap(
        self, info: VersionInfo, path: Path, files: Mapping[str, str], *, try_canaries: bool
    ) -> SwapResponse:
        closing = perf_counter()
        async with self._swap_lock.exclusive(self._settings.drain_seconds):
            drained = perf_counter()
            reloaded, before = await self._load_or_restore(info, path, try_canaries)
            previous = before or self._swap_lock.version.id
            self._loaded, self._files, self._knows_canaries = path, files, try_canaries
            self._adapters.forget_all()
            self._forget_answers()
            self._swap_lock.version = info
            metrics.set_version(self._settings.model_name, info.id)
            opening = perf_counter()
        return SwapResponse(
            version=info.id,
            previous=previous,
            blackout_ms=(opening - closing) * 1000,
            drain_ms=(drained - closing) * 1000,
            reload_ms=(reloaded - drained) * 1000,
        )

    def _publish(self, version: str) -> str | None:
        """Moves the store's pointer, unless others move it. Returns the version before if it moved.

        Raises PointerFailure.
        """
        try:
            return self._store.activate(version).previous if self._settings.moves_pointer else None
        except (OSError, UserError, ProblemError) as failure:
            log.error("the store's pointer could not be moved: %s", failure)
            raise PointerFailure(
                "The store's pointer could not be moved; the version is unchanged. See whether its volume is full."
            ) from failure

    async def _load_or_restore(self, info: VersionInfo, path: Path, try_canaries: bool) -> tuple[float, str | None]:
        """Loads a version, asks its canaries and publishes it. After any failure the old version answers again.

        Returns the time at which the weights were loaded, and the version before if the pointer moved.
        """
        try:
            await self._engine.pause()
            await self._engine.reload(path, info.id)
            reloaded = perf_counter()
            await self._engine.resume()
            if try_canaries:
                await self._check_canaries(info)
            return reloaded, await file_work(self._publish, info.id)
        except EngineDead:
            raise
        except BaseException as failure:
            await asyncio.shield(self._restore())
            if isinstance(failure, VersionError | PointerFailure):
                raise
            if isinstance(failure, Exception):
                raise VersionError("load_failed", "the engine could not load the weights") from failure
            raise

    async def _check_canaries(self, info: VersionInfo) -> None:
        share = await self.canaries.ask(info)
        if share < self._settings.canary_min_readable:
            raise VersionError("unreadable_canaries", f"only {share:.0%} of the canary answers were readable")
        metrics.canary_readable.set(share)

    async def _restore(self) -> None:
        """Loads the previous weights again. If they are no longer the same, shuts the engine down."""
        try:
            await file_work(check_unchanged, self._loaded, self._files)
            await self._engine.pause()
            await self._engine.reload(self._loaded, self._swap_lock.version.id)
            await self._engine.resume()
            if self._knows_canaries:
                await self.canaries.ask(self._swap_lock.version)
            self._adapters.forget_all()
        except Exception as failure:
            log.exception("the previous weights could not be restored")
            await file_work(self._engine.shutdown)
            raise EngineDead("Neither the new nor the previous weights could be loaded.") from failure


async def _counted(version: str, swap: Coroutine[Any, Any, SwapResponse]) -> SwapResponse:
    """Logs a swap and counts its outcome."""
    try:
        response = await swap
    except ProblemError as refusal:
        if isinstance(refusal, NotActive):  # not attempted
            raise
        metrics.swaps.labels("refused").inc()
        log.warning("version %s refused: %s", version, refusal)
        raise
    metrics.swaps.labels("done").inc()
    metrics.swap_blackout_seconds.observe(response.blackout_ms / 1000)
    log.info("swapped to %s; new requests waited for %.0f ms", version, response.blackout_ms)
    return response


async def _to_its_end(swap: Coroutine[Any, Any, SwapResponse]) -> SwapResponse:
    """Awaits a swap that has begun to its end, even if the caller is cancelled meanwhile."""
    work = asyncio.ensure_future(swap)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise


def _unchanged(version: str, previous: str | None) -> SwapResponse:
    return SwapResponse(version=version, previous=previous, blackout_ms=0, drain_ms=0, reload_ms=0)
