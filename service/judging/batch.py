"""Many pictures scored by one version of the weights, each answer handed over as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from service.contract import ScoreOptions, ScoreResponse
from service.errors import DeadlineExceeded
from service.images.picture import Picture
from service.judging.judge import HeldJudge, Judge
from service.together import together

Outcome = ScoreResponse | Exception


class Batch:
    """A batch at work, whether or not anyone reads its outcomes, until the block that it opens ends.

    A picture that could not be opened comes as its error, and becomes that outcome.
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
        """The version that answers, once the gate let the batch in. Raises InvalidRequest as `Judge.score`."""
        await asyncio.wait((self._version, self._work), return_when=asyncio.FIRST_COMPLETED)
        if not self._version.done():
            await self._work
        return self._version.result()

    async def outcomes(self, until: float | None) -> AsyncIterator[tuple[int, Outcome]]:
        """Position and answer (or failure) of every picture, in the order in which they are ready.

        Those that are not ready at the loop's time `until` come as DeadlineExceeded.
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
        await together(*(self._decode(index, picture) for index, picture in enumerate(self._pictures)))
        async with self._judge.hold() as held:
            held.mode(self._options)
            self._version.set_result(held.version.id)
            async with asyncio.TaskGroup() as group:
                for index, picture in enumerate(self._pictures):
                    group.create_task(self._score(held, index, picture))

    async def _decode(self, index: int, picture: Picture | Exception) -> None:
        """Before the gate, for a swap waits for all that are behind it."""
        if isinstance(picture, Exception) or self._judge.knows(picture, self._options):
            return
        try:
            await picture.pixels()
        except Exception as failure:
            self._pictures[index] = failure

    async def _score(self, held: HeldJudge, index: int, picture: Picture | Exception) -> None:
        outcome: Outcome
        if isinstance(picture, Exception):
            outcome = picture
        else:
            try:
                outcome = await held.score(picture, self._options)
            except Exception as failure:
                outcome = failure
        self._outcomes.put_nowait((index, outcome))
