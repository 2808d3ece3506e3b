"""The three sides (vLLM called directly, this service, vLLM's own server) on the embedded checkpoint, and the load.

A load is a number of clients, each of which sends its next picture as soon as it has an answer. Pictures are fresh for
every measurement, so that no cache answers.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter

import aiohttp
import httpx
import numpy as np
from PIL import Image

from service.answers import read_scores
from service.configuration.settings import Settings
from service.prompts import PROFILES, chat_messages, max_tokens, question

Ask = Callable[[bytes], Awaitable[float | None]]
SIDE = 112
CHECKPOINT = Path("trainer/demo/checkpoint")
PROFILE = PROFILES["plain"]
LENGTH, AT_ONCE = 512, 64
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
EVOQUALITY = (str(Path(sys.executable).with_name("evoquality")),)
STEADY = aiohttp.ClientTimeout(total=600)


@dataclass(frozen=True)
class Measurement:
    """Throughput and latencies under one load."""

    images_per_second: float
    p50_ms: float
    p99_ms: float


async def measure(ask: Ask, pictures: Sequence[bytes], callers: int) -> Measurement:
    """Sends every picture once."""
    left, latencies = iter(pictures), []

    async def caller() -> None:
        for picture in left:
            began = perf_counter()
            await ask(picture)
            latencies.append(perf_counter() - began)

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Measurement(len(pictures) / (perf_counter() - began), float(p50), float(p99))


def fresh(count: int, seed: int) -> list[bytes]:
    """PNG files of smooth colours with noise, 112 pixels a side."""
    random = np.random.default_rng(seed)
    return [_png(random, coarseness=4 + index % 24) for index in range(count)]


def _png(random: np.random.Generator, coarseness: int) -> bytes:
    coarse = random.integers(0, 256, (coarseness, coarseness, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@asynccontextmanager
async def direct() -> AsyncIterator[Mapping[str, Ask]]:
    """AsyncLLM in the caller's own process, with the service's engine settings; the client decodes the PNG."""
    from transformers import AutoProcessor
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    from service.engine.vllm_engine import engine_args, set_environment

    set_environment()
    llm = AsyncLLM.from_engine_args(engine_args(CHECKPOINT, Settings(max_model_len=LENGTH, max_num_seqs=AT_ONCE), None))
    messages = chat_messages("score", PROFILE)
    processor = AutoProcessor.from_pretrained(CHECKPOINT, trust_remote_code=False)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    numbers = count()

    def sampled(samples: int) -> Ask:
        params = SamplingParams(
            n=samples,
            temperature=1.0,
            max_tokens=max_tokens("score", PROFILE),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

        async def ask(png: bytes) -> float | None:
            with Image.open(io.BytesIO(png)) as picture:
                prompt = {"prompt": text, "multi_modal_data": {"image": [picture.convert("RGB")]}}
            async for output in llm.generate(prompt, params, request_id=f"{next(numbers)}"):
                last = output
            return _mean([answer.text for answer in last.outputs])

        return ask

    try:
        yield {"k1": sampled(1), "k8": sampled(8)}
    finally:
        llm.shutdown()


@dataclass(frozen=True)
class Served:
    """The service: its process, its requests by kind, and its operators' port and key."""

    process: int
    asks: Mapping[str, Ask]
    operator_url: str
    key: str


@asynccontextmanager
async def service(folder: Path, program: Sequence[str] = EVOQUALITY) -> AsyncIterator[Served]:
    """`evoquality serve`, with multipart requests."""
    folder.mkdir(exist_ok=True)
    port, operator_port = _free_port(), _free_port()
    command = [
        *program,
        "serve",
        f"--checkpoint={CHECKPOINT}",
        "--store",
        str(folder / "store"),
        f"--port={port}",
        f"--operator-port={operator_port}",
        f"--max-model-len={LENGTH}",
        f"--max-num-seqs={AT_ONCE}",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, f"{url}/health/ready", folder / "service.log") as process:
        async with _session() as session:

            def asking(**fields: str) -> Ask:
                async def ask(png: bytes) -> float | None:
                    form = aiohttp.FormData(fields)
                    form.add_field("image", png, filename="a.png", content_type="image/png")
                    async with session.post(f"{url}/v1/score", data=form) as response:
                        response.raise_for_status()
                        return (await response.json())["score"]

                return ask

            asks = {
                "k1": asking(mode="sampled", samples="1"),
                "k8": asking(mode="sampled", samples="8"),
                "expected": asking(mode="expected"),
            }
            key = (folder / "store" / "operator.key").read_text().strip()
            yield Served(process, asks, f"http://127.0.0.1:{operator_port}", key)


@asynccontextmanager
async def vllm_serve(folder: Path) -> AsyncIterator[Mapping[str, Ask]]:
    """vLLM's OpenAI server with default settings: base64 pictures, n answers, parsed by the client, as with
    VisualQuality-R1.

    Defaults: blocks of 128 tokens, a worker process, threads on all cores. The service and `direct` set these
    differently (see `vllm_engine.py`).
    """
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        f"--model={CHECKPOINT}",
        f"--port={port}",
        "--dtype=float32",
        "--enforce-eager",
        f"--max-model-len={LENGTH}",
        f"--max-num-seqs={AT_ONCE}",
        "--limit-mm-per-prompt",
        '{"image": 2, "video": 0}',
        "--served-model-name=iqa",
        "--uvicorn-log-level=warning",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, f"{url}/health", folder / "vllm.log"):
        async with _session() as session:

            def sampled(samples: int) -> Ask:
                async def ask(png: bytes) -> float | None:
                    picture = {"url": "data:image/png;base64," + base64.b64encode(png).decode()}
                    content = [
                        {"type": "image_url", "image_url": picture},
                        {"type": "text", "text": question("score", PROFILE)},
                    ]
                    body = {
                        "model": "iqa",
                        "messages": [{"role": "user", "content": content}],
                        "n": samples,
                        "temperature": 1.0,
                        "max_tokens": max_tokens("score", PROFILE),
                    }
                    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                        response.raise_for_status()
                        choices = (await response.json())["choices"]
                    return _mean([choice["message"]["content"] for choice in choices])

                return ask

            yield {"k1": sampled(1), "k8": sampled(8)}


def _mean(texts: list[str]) -> float | None:
    scores = read_scores(texts, PROFILE)
    return statistics.fmean(scores) if scores else None


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=STEADY)


@contextmanager
def _running(command: list[str], ready: str, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(process, ready, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(300)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"a server exited with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"no answer from {url}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
