"""Many pictures scored by one version of the weights. Each answer is handed over as soon as it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Self

from evoquality.contract import ScoreOptions, ScoreResponse, VersionInfo
from service.concurrency import gather
from service.errors import DeadlineExceeded, InvalidRequest, Swapping
from service.images.decoder import Decoder, Picture
from service.judging.judge import Judge
from service.judging.plan import chosen_mode
from service.prompts import PROFILES

Outcome = ScoreResponse | Exception


class Batch:
    """A running batch. It works until its block ends, even if nobody reads the outcomes.

    A picture that could not be opened is given as its error, which becomes its outcome. Pictures that do not fit into
    the memory together are decoded and scored in parts.
    """

    def __init__(
        self, judge: Judge, decoder: Decoder, pictures: Sequence[Picture | Exception], options: ScoreOptions
    ) -> None:
        self._judge = judge
        self._decoder = decoder
        self._options = options
        self._pictures = pictures
        self._index = {picture: index for index, picture in enumerate(pictures) if isinstance(picture, Picture)}
        self._turn = asyncio.Lock()
        self._version: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._outcomes: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._work = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._work.cancel()
        await asyncio.wait((self._work,))

    async def version(self) -> str:
        """Waits for the session of the batch and returns its version. Raises InvalidRequest as `Judge.score`."""
        await asyncio.wait((self._version, self._work), return_when=asyncio.FIRST_COMPLETED)
        if not self._version.done():
            await self._work
        return self._version.result()

    async def outcomes(self, until: float | None) -> AsyncIterator[tuple[int, Outcome]]:
        """Yields position and answer (or failure) of every picture as they become ready.

        A picture that is not ready at the loop's time `until` yields DeadlineExceeded.
        """
        missing = set(range(len(self._pictures)))
        while missing:
            try:
                async with asyncio.timeout_at(until):
                    index, outcome = await self._outcomes.get()
            except TimeoutError:
                break
            missing.discard(index)
            yield index, outcome
        for index in sorted(missing):
            yield index, DeadlineExceeded("There was no time left for this image.")

    async def _run(self) -> None:
        opened = [picture for picture in self._pictures if isinstance(picture, Picture)]
        for index, picture in enumerate(self._pictures):
            if isinstance(picture, Exception):
                self._outcomes.put_nowait((index, picture))
        for part in self._decoder.slices(opened):
            try:
                async with self._decoder.room(part):
                    await self._score_part(part)
            except InvalidRequest as failure:
                if not self._version.done():
                    raise
                self._fail(part, failure)

    async def _score_part(self, pictures: Sequence[Picture]) -> None:
        prepared = await gather(*(self._prepared(picture) for picture in pictures))
        async with self._judge.session() as version:
            if not self._version.done():
                chosen_mode(self._options, PROFILES[version.profile])  # refuses the batch before it names a version
                self._version.set_result(version.id)
            if version.id != self._version.result():
                self._fail(pictures, Swapping("The weights were replaced during the batch; send this image again."))
                return
            await gather(*(self._score(version, picture) for picture in filter(None, prepared)))

    async def _prepared(self, picture: Picture) -> Picture | None:
        """Decodes and scales before the session, because a swap waits for every session."""
        try:
            await self._judge.prepare(picture, self._options, self._turn)
        except Exception as failure:
            self._fail([picture], failure)
            return None
        return picture

    async def _score(self, version: VersionInfo, picture: Picture) -> None:
        outcome: Outcome
        try:
            outcome = await self._judge.score(picture, self._options, version)
        except Exception as failure:
            outcome = failure
        self._outcomes.put_nowait((self._index[picture], outcome))
        picture.close()

    def _fail(self, pictures: Iterable[Picture], failure: Exception) -> None:
        for picture in pictures:
            self._outcomes.put_nowait((self._index[picture], failure))
