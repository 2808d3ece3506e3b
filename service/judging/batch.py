"""Many pictures scored by one version of the weights, each answer handed over as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from service.contract import ScoreOptions, ScoreResponse
from service.errors import ServiceError
from service.images.picture import Picture
from service.judging.judge import HeldJudge, Judge

Outcome = ScoreResponse | Exception


class Batch:
    """A batch at work from the moment it is made, whether or not anyone reads its outcomes.

    A picture that could not be opened comes as its error, and becomes that outcome.
    """

    def __init__(self, judge: Judge, pictures: Sequence[Picture | ServiceError], options: ScoreOptions) -> None:
        self._options = options
        self._pictures = pictures
        self._version: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._outcomes: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
        self._work = asyncio.create_task(self._run(judge))

    async def version(self) -> str:
        """The version that answers, once the gate let the batch in. Raises InvalidRequest as `Judge.score`."""
        await asyncio.wait((self._version, self._work), return_when=asyncio.FIRST_COMPLETED)
        if not self._version.done():
            await self._work
        return self._version.result()

    async def outcomes(self) -> AsyncIterator[tuple[int, Outcome]]:
        """Position and answer (or failure) of every picture, in the order in which they are ready."""
        for _ in self._pictures:
            yield await self._outcomes.get()

    def cancel(self) -> None:
        """Ends what is still at work."""
        self._work.cancel()

    async def _run(self, judge: Judge) -> None:
        async with judge.hold() as held:
            held.mode(self._options)
            self._version.set_result(held.version.id)
            async with asyncio.TaskGroup() as group:
                for index, picture in enumerate(self._pictures):
                    group.create_task(self._score(held, index, picture))

    async def _score(self, held: HeldJudge, index: int, picture: Picture | ServiceError) -> None:
        outcome: Outcome
        if isinstance(picture, ServiceError):
            outcome = picture
        else:
            try:
                outcome = await held.score(picture, self._options)
            except Exception as failure:
                outcome = failure
            picture.release()
        self._outcomes.put_nowait((index, outcome))
