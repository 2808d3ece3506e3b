"""A client that keeps sending requests while the demo evolves the model, and logs every answer.

    python -m trainer.demo.traffic --url http://127.0.0.1:8000 --images DIR --out traffic.jsonl

It repeats a few greedy requests, so a version always gives the same answer to each. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from evoquality import AsyncClient, ServiceError
from evoquality.contract import CompareOptions, ScoreOptions
from trainer.files import append_jsonl

IMAGES = 12


def main(
    url: Annotated[str, typer.Option(help="Address of the service.")],
    images: Annotated[Path, typer.Option(help="Folder of images; the first dozen are used.")],
    out: Annotated[Path, typer.Option(help="Output file, one line of JSON per request.")],
    pause: Annotated[float, typer.Option(help="Seconds between two requests of one client.")] = 0.35,
) -> None:
    """Two clients: one requests scores, one comparisons."""
    asyncio.run(_keep_asking(url, sorted(images.iterdir())[:IMAGES], out, pause))


async def _keep_asking(url: str, images: list[Path], out: Path, pause: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncClient(url) as client, asyncio.TaskGroup() as callers:
        callers.create_task(_caller(client, [(image,) for image in images], out, pause, stop))
        callers.create_task(_caller(client, list(itertools.pairwise(images)), out, pause, stop))


async def _caller(
    client: AsyncClient, questions: list[tuple[Path, ...]], out: Path, pause: float, stop: asyncio.Event
) -> None:
    for images in itertools.cycle(questions):
        if stop.is_set():
            return
        append_jsonl(out, [await _ask(client, images)])
        await asyncio.sleep(pause)


async def _ask(client: AsyncClient, images: tuple[Path, ...]) -> dict[str, object]:
    row: dict[str, object] = {
        "time": time.time(),
        "question": "+".join(image.stem for image in images),
        "version": "",
        "answer": "",
        "error": None,
    }
    began = time.perf_counter()
    try:
        if len(images) == 1:
            score = await client.score(images[0], ScoreOptions(samples=1, temperature=0))
            row |= {"version": score.version, "answer": str(score.score)}
        else:
            first, second = images
            preference = await client.compare(first, second, CompareOptions(samples=2, temperature=0))
            row |= {"version": preference.version, "answer": preference.model_dump_json(include={"orders"})}
    except (ServiceError, httpx.HTTPError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row | {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    typer.run(main)
