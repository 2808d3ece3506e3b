"""One replica of the service as a rollout worker: its health, and the adapters or weights it has loaded."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4

import httpx

from evoquality import AsyncClient, ServiceError, encode_image
from evoquality.calls import Call
from evoquality.contract import InfoResponse, SwapResponse
from trainer.files import writing

_REST_SECONDS = 10.0
"""A replica in trouble is skipped for this long while others answer."""
_GOODBYE_SECONDS = 5.0
"""Time limit of unloading an adapter: leftovers are removed at the next start."""
_BUSY = {429, 502, 503, 504}
_ASK_AGAIN = {"swapping", "unknown_images"}
"""Codes of refusals after which the same replica can be asked at once: it holds the question until a swap is done."""
_AHEAD = 1.5
"""Sequences under way for each that the engine samples at the same time: those ahead begin the moment one ends."""

Trouble = ServiceError | httpx.TransportError


class Pictures(Protocol):
    """Image files by the ids that a batch gives them."""

    def bytes_of(self, image_id: str) -> bytes:
        """The file."""

    def fingerprint(self, image_id: str) -> tuple[str, int]:
        """Its SHA-256 in hex, and its length in bytes."""


@dataclass(slots=True)
class Replica:
    """A service at one address. `trouble` is the last failure, None after an answer."""

    url: str
    client: AsyncClient
    adapters: Path
    overwritten: bool = False
    """True for the role rollout: its weights are overwritten with the version that is asked for."""
    trouble: Trouble | None = None
    in_flight: int = 0
    """Sequences that it is asked for at the moment."""
    info: InfoResponse | None = None
    """What it said of itself, once it was asked."""
    _was_met: bool = False
    _known: set[str] = field(default_factory=set)
    """Digests of files that were sent to it."""
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rests_until: float = 0.0
    _loaded: dict[str, str] = field(default_factory=dict)
    """The replica's own name of every adapter: an engine never takes a name twice."""
    _overwritten_with: str | None = None
    """The version it was overwritten with."""
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def may_be_asked(self) -> bool:
        """True if it answered last time, or has been skipped for long enough since."""
        return self.trouble is None or monotonic() >= self._rests_until

    @property
    def load(self) -> float:
        """The share of its room that is taken; one that is not known yet has room for one request."""
        return self.in_flight / (_AHEAD * self.info.max_num_seqs if self.info else 1)

    @property
    def has_another_version(self) -> bool:
        """True if it refused because it serves another version than was asked for."""
        conflict = isinstance(self.trouble, ServiceError) and self.trouble.problem.code == "version_conflict"
        return conflict and not self.overwritten

    def note(self, trouble: Trouble) -> None:
        """Records that it cannot answer now. Raises `trouble` if waiting would not help."""
        if isinstance(trouble, ServiceError):
            code = trouble.problem.code
            if code in _ASK_AGAIN:
                return
            if code == "unknown_adapter":  # it was restarted, or has swapped
                self._loaded.clear()
            elif code == "version_conflict":
                self._overwritten_with = None
            elif code == "drain_timeout" or (trouble.problem.status not in _BUSY and code != "not_active"):
                raise trouble
        self.trouble = trouble
        self._was_met = False
        self._rests_until = monotonic() + _REST_SECONDS

    async def meet(self) -> InfoResponse:
        """What it says of itself, asked once, and again after trouble: it may have come back with other limits."""
        if self.info is None or not self._was_met:
            self.info = await self.client.info()
            self._was_met = True
        return self.info

    def lacks(self, digest: str, refused: Collection[str]) -> bool:
        """True if a file has to be sent along; `refused` are those that it had once, and may lose again."""
        return digest in refused or digest not in self._known

    async def lines(
        self,
        ask: Callable[[Mapping[str, str]], Call[Any]],
        digests: Mapping[str, str],
        pictures: Pictures,
        refused: set[str],
    ) -> AsyncGenerator[Any, None]:
        """The lines of an answer about images, given their digests. Files that it lacks are sent along, by one request
        at a time, so that none is sent twice.

        Raises:
            ServiceError: code `unknown_images` if it has lost files; they are in `refused` then.
        """
        async with AsyncExitStack() as sending:
            if any(self.lacks(digest, refused) for digest in digests.values()):
                await sending.enter_async_context(self._sending)
            sent = {image: f"sha256:{digest}" for image, digest in digests.items()}
            lacking = [image for image, digest in digests.items() if self.lacks(digest, refused)]
            sent |= {image: encode_image(await asyncio.to_thread(pictures.bytes_of, image)) for image in lacking}
            try:
                async with aclosing(self.client.lines(await asyncio.to_thread(ask, sent))) as lines:
                    async for line in lines:
                        self._known.update(digests.values())
                        await sending.aclose()
                        yield line
            except ServiceError as error:
                lost = error.problem.images or ()
                self._known.difference_update(lost)
                refused.update(lost)
                raise

    async def overwrite(self, version: str) -> None:
        """Overwrites a rollout engine's weights with those handed over as `version`."""
        async with self._loading:
            if self.overwritten and self._overwritten_with != version:
                await self.client.overwrite_weights(version)
                self._overwritten_with = version

    async def own_name(self, adapter: str | None) -> str | None:
        """This replica's own name for `<store>/adapters/<adapter>`, which is loaded first if necessary."""
        if adapter is None:
            return None
        async with self._loading:
            if adapter not in self._loaded:
                own = f"{adapter}.{uuid4().hex[:8]}"
                with writing(self.adapters / own):
                    await asyncio.to_thread(
                        shutil.copytree, self.adapters / adapter, self.adapters / own, copy_function=_link
                    )
                await self.client.load_adapter(own)
                self._loaded[adapter] = own
            return self._loaded[adapter]

    async def unload(self, adapter: str) -> None:
        """Unloads an adapter if it is loaded here and the replica answers soon."""
        if own := self._loaded.pop(adapter, None):
            await self.remove(own)

    async def remove(self, name: str) -> None:
        """Unloads an adapter by the replica's own name for it, and deletes its directory.

        The replica itself may see the store read-only.
        """
        with suppress(ServiceError, httpx.TransportError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.client.unload_adapter(name)
            await asyncio.to_thread(shutil.rmtree, self.adapters / name, ignore_errors=True)

    async def promote(self, version: str) -> SwapResponse:
        """Makes it serve a version; a swap unloads all adapters."""
        swap = await self.client.promote(version)
        self._loaded.clear()
        return swap


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the volume has none: adapters are never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
