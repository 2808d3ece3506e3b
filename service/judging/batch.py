"""Many pictures scored by one version of the weights. Each answer is handed over as soon as it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from service.concurrency import gather
from service.contract import ScoreOptions, ScoreResponse, VersionInfo
from service.errors import DeadlineExceeded
from service.images.picture import Picture
from service.judging.estimates import chosen_mode
from service.judging.judge import Judge
from service.prompts import PROFILES

Outcome = ScoreResponse | Exception


class Batch:
    """A running batch. It works until its block ends, even if nobody reads the outcomes.

    A picture that could not be opened is given as its error, which becomes its outcome.
    """

    def __init__(self, judge: Judge, pictures: Sequence[Picture | Exception], options: ScoreOptions) -> None:
        self._judge = judge
        self._options = options
        self._pictures = list(pictures)
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
        await gather(*(self._decode(index, picture) for index, picture in enumerate(self._pictures)))
        async with self._judge.session() as version:
            chosen_mode(self._options, PROFILES[version.profile])  # refuses the batch before it names a version
            self._version.set_result(version.id)
            async with asyncio.TaskGroup() as group:
                for index, picture in enumerate(self._pictures):
                    group.create_task(self._score(version, index, picture))

    async def _decode(self, index: int, picture: Picture | Exception) -> None:
        """Decodes before the session, because a swap waits for every session."""
        if isinstance(picture, Exception) or self._judge.knows(picture, self._options):
            return
        try:
            await picture.pixels()
        except Exception as failure:
            self._pictures[index] = failure

    async def _score(self, version: VersionInfo, index: int, picture: Picture | Exception) -> None:
        outcome: Outcome
        if isinstance(picture, Exception):
            outcome = picture
        else:
            try:
                outcome = await self._judge.score(picture, self._options, version)
            except Exception as failure:
                outcome = failure
        self._outcomes.put_nowait((index, outcome))
