"""Callers that keep asking through the balancer, and write down every answer.

    python -m tests.benchmarks.replicas.traffic --url http://127.0.0.1:8000 --images DIR --out answers.jsonl

They ask for expected answers, so that every version answers each question in one way only. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import typer

from service.client import calls
from tests.benchmarks.replicas.answers import Images, ask

IMAGES = 12
BATCH = 4
TIMEOUT_SECONDS = 90.0

Question = tuple[calls.Call[Any], Images]


def main(
    url: Annotated[str, typer.Option(help="Address of the balancer.")],
    images: Annotated[Path, typer.Option(help="Folder of images; the first dozen are used.")],
    out: Annotated[Path, typer.Option(help="JSON lines: one a request.")],
    callers: Annotated[int, typer.Option(help="Callers of each kind: scores, comparisons, batches.")] = 2,
    pause: Annotated[float, typer.Option(help="Seconds between two requests of one caller.")] = 0.1,
) -> None:
    """Asks until SIGTERM; what was asked before is answered before it ends."""
    kinds = _questions(sorted(images.iterdir())[:IMAGES])
    asyncio.run(_keep_asking(url, kinds * callers, out, pause))


def _questions(images: list[Path]) -> list[list[Question]]:
    """By kind: scores, comparisons, batches."""
    pairs = list(itertools.pairwise(images))
    batches = [tuple(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return [
        [(calls.score(image), (image,)) for image in images],
        [(calls.compare(first, second), (first, second)) for first, second in pairs],
        [(calls.score_batch(batch), batch) for batch in batches],
    ]


async def _keep_asking(url: str, callers: list[list[Question]], out: Path, pause: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with out.open("w") as file:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as client, asyncio.TaskGroup() as group:
            for number, questions in enumerate(callers):
                turned = questions[number % len(questions) :] + questions[: number % len(questions)]
                group.create_task(_caller(client, turned, file, pause, stop))


async def _caller(
    client: httpx.AsyncClient, questions: list[Question], file: IO[str], pause: float, stop: asyncio.Event
) -> None:
    for call, images in itertools.cycle(questions):
        if stop.is_set():
            return
        file.write((await ask(client, call, images)).line())
        await asyncio.sleep(pause)


if __name__ == "__main__":
    typer.run(main)
