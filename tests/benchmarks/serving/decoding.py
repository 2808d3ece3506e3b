"""What decoding in processes costs: the service beside the same service that decodes in threads, at one megapixel.

    python -m tests.benchmarks.serving.decoding

Both are up; they are asked in turn, for pictures that are new to them. Writes `runs/bench/decoding.json`: images a
second, and the CPU time that an image takes in all processes of the service, which depends less on other work.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from service.images import decoder
from service.images.decoder import Picture
from service.images.picture import decode, from_text, read_size
from tests.benchmarks.serving.sides import ENVIRONMENT, EVOQUALITY, measure, service
from trainer.files import write_json

OUT = Path("runs/bench/decoding.json")
SIZE = 1152, 864
CALLERS, IMAGES, REPEATS = 16, 64, 5
IN_THREADS = (sys.executable, "-m", "tests.benchmarks.serving.decoding")


def photographs(count: int, seed: int) -> list[bytes]:
    """JPEGs of one megapixel with noise."""
    random = np.random.default_rng(seed)
    return [_photograph(random) for _ in range(count)]


def _photograph(random: np.random.Generator) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.float32) + random.normal(0, 6, (SIZE[1], SIZE[0], 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


async def run() -> dict[str, Any]:
    """Measures both."""
    figures: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            sides = {
                name: await stack.enter_async_context(service(Path(folder) / name, command))
                for name, command in (("processes", EVOQUALITY), ("threads", IN_THREADS))
            }
            for served in sides.values():
                await measure(served.asks["expected"], photographs(IMAGES, 99), CALLERS)
            for repeat in range(REPEATS):
                pictures = photographs(IMAGES, repeat)
                for name, served in sides.items():
                    before = cpu_seconds(served.process)
                    taken = await measure(served.asks["expected"], pictures, CALLERS)
                    figures[f"{name}_per_second"].append(taken.images_per_second)
                    figures[f"{name}_cpu_ms"].append((cpu_seconds(served.process) - before) / IMAGES * 1000)
    middle = {name: statistics.median(values) for name, values in figures.items()}
    return middle | {
        "throughput_of_processes_over_threads": middle["processes_per_second"] / middle["threads_per_second"],
        "cpu_of_processes_over_threads": middle["processes_cpu_ms"] / middle["threads_cpu_ms"],
    }


def cpu_seconds(process: int) -> float:
    """CPU time of a process and of all below it."""
    ticks = sum(sum(map(int, _stat(each)[11:13])) for each in _tree(process))
    return ticks / os.sysconf("SC_CLK_TCK")


def _tree(process: int) -> Iterator[int]:
    parents = {int(file.parent.name): file for file in Path("/proc").glob("[0-9]*/stat")}
    children: dict[int, list[int]] = {}
    for number in parents:
        try:
            children.setdefault(int(_stat(number)[1]), []).append(number)
        except OSError:  # it ended
            continue
    waiting = [process]
    while waiting:
        yield (one := waiting.pop())
        waiting += children.get(one, [])


def _stat(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


class _InThreads(decoder._Request):
    """Reads and decodes as the service did before it had processes: in two threads of its own."""

    turns = asyncio.Semaphore(2)

    async def open(self, source: bytes | str) -> Picture:
        limits = self._decoder.limits

        def read() -> tuple[bytes, str, int]:
            data = from_text(source, limits) if isinstance(source, str) else source
            width, height = read_size(data, limits)
            return data, hashlib.sha256(data).hexdigest(), width * height * 4

        async with self.turns:
            data, digest, size = await asyncio.to_thread(read)

        async def pixels() -> Image.Image:
            async with self.turns:
                return await asyncio.to_thread(decode, data, limits)

        picture = Picture(digest, size, pixels)
        self._owned.append(picture)
        return picture


def _serve() -> None:
    decoder._Request = _InThreads
    from service.cli import app

    app()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve()
    else:
        os.environ.update(ENVIRONMENT)
        summary = asyncio.run(run())
        write_json(OUT, summary)
        Console().print_json(data=summary)
