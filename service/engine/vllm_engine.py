"""The engine: vLLM's AsyncLLM in this process. Only this file and `vllm_worker.py` import vLLM."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import torch
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from vllm import SamplingParams
from vllm import __version__ as vllm_version
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from evoquality.contract import Task
from service.concurrency import gather
from service.configuration.settings import Settings
from service.engine.canary import canary_images
from service.engine.memory import BATCHED_TOKENS
from service.engine.pixels import Fitted, PixelLimits
from service.engine.protocol import END, UNNAMED, Adapter, Begun, Generation, Paths, Prompt, Sample, Sampling, Step
from service.engine.spelling import SPELLED, Spelling
from service.errors import AdapterRefused, EngineDead, EngineFailure, InvalidRequest, UserError
from service.images.shares import Queue, Turns, preparing
from service.prompts import Profile, chat_messages, max_tokens

log = logging.getLogger(__name__)

_SCORE_TOKENS = len(SPELLED) + 1
_WARMING_TOKENS = 8
_IDLE_SHARE = 0.1
"""Of a core: what the threads of an engine take that does nothing."""

_AHEAD_PIXELS = 4_000_000
"""As the model sees them, for one request: 24 bytes a pixel."""

_CPU: dict[str, Any] = {
    "block_size": 32,
    "worker_cls": "service.engine.vllm_worker.CpuWorker",
    "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
    "enable_chunked_prefill": False,
    "mm_processor_cache_gb": 0.5,
}
"""Block size: with the CPU's default of 128 tokens, K answers would never share a question of 90 tokens, at half the
speed; 16 does not start. Chunked prefill: with seeded sampling it kills the engine, because vLLM rewinds the random
generator for each chunk and a CPU generator cannot be rewound. Cache of prepared pictures: the 4 GiB of vLLM's default
would come on top of the limits of this service."""


class VllmEngine:
    """`Engine` over vLLM."""

    def __init__(self, weights: Path, profile: Profile, settings: Settings) -> None:
        """Starts the engine's processes and loads `weights`: half a minute. Needs a running event loop.

        Raises EngineFailure; UserError if pictures of the settings' `max_pixels` or `min_pixels` do not fit.
        """
        self._limit, self._context = settings.max_answer_tokens, settings.max_model_len
        self._text = cache(self._render)
        try:
            set_environment()
            self._processor = AutoProcessor.from_pretrained(weights, trust_remote_code=False)
            self._spelling = Spelling(self._processor.tokenizer)
            self._fitted = Fitted(self._processor.image_processor, settings, self._question)
            self._begun_with = self._fitted.begin(profile)
            self._llm = AsyncLLM.from_engine_args(engine_args(weights, settings, self._begun_with))
        except UserError:
            raise
        except Exception as failure:
            log.error("the engine did not start", exc_info=failure)
            raise EngineFailure("the engine did not start; the log above says why") from failure
        self._processes = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
        self._computed = 0.0
        self._looked = monotonic()
        dtype = str(self._llm.model_config.dtype).removeprefix("torch.")
        device = f"{settings.tensor_parallel_size} x {current_platform.get_device_name()}"
        self.arithmetic = f"{dtype} on {device}, vllm {vllm_version}, {self._begun_with or 'any pixels'}"
        self._numbers = itertools.count()
        self._turns = Turns(2)  # one is prepared, and the next one is at hand

    async def warm_up(self, version: str, profile: Profile) -> None:
        """Sets the version and runs every kind of request once, because the first of each kind takes seconds."""
        await self._llm.update_weight_version(version)
        await asyncio.to_thread(self._spelling.token, END, profile)  # looks through the vocabulary
        first, second, *_ = canary_images()
        for logprobs in (False, True):
            sampling = Sampling(2, seed=0, logprobs=logprobs, limit=_WARMING_TOKENS)
            await self.generate(Prompt("score", (first,), profile), sampling)
            await self.generate(Prompt("compare", (first, second), profile), sampling)

    async def prepare(self, prompt: Prompt) -> None:
        request = preparing.get()
        sizes = [self.seen_size(*image.size, prompt.profile) or image.size for image in prompt.images]
        seen = sum(width * height for width, height in sizes)
        if request and seen * (len(request.ahead) + 1) <= _AHEAD_PIXELS:
            with _translated_errors():
                request.ahead[_name(prompt)] = await self._rendered(prompt)

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        begun: tuple[int, ...] = (),
        adapter: Adapter | None = None,
        priority: int = 0,
    ) -> Generation:
        with _translated_errors():
            for _ in range(2):
                output = await self._ask(prompt, sampling, begun, adapter, priority)
                if not any(answer.finish_reason == "error" for answer in output.outputs):
                    return _generation(output, sampling.n)
        raise EngineFailure("The engine failed this request twice.")

    async def follow(
        self, prompt: Prompt, beginnings: Sequence[Begun], tokens: Sequence[str], steps: int, *, priority: int = 0
    ) -> Paths:
        ids = {token: self._spelling.token(token, prompt.profile) for token in tokens}
        params = SamplingParams(
            max_tokens=steps,
            temperature=0,
            logprob_token_ids=sorted({one for several in ids.values() for one in several}),
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        with _translated_errors():
            for _ in range(2):
                rendered = await self._rendered(prompt)
                asked = (_extended(rendered, [*tokens, *self._spelling.ids(text)]) for tokens, text in beginnings)
                outputs = await gather(*(self._finish(one, params, priority=priority) for one in asked))
                answers = [output.outputs[0] for output in outputs]
                if not any(answer.finish_reason == "error" for answer in answers):
                    return Paths([_steps(answer, ids) for answer in answers], _versions(answers))
        raise EngineFailure("The engine failed this request twice.")

    async def load_adapter(self, adapter: Adapter) -> None:
        with _translated_errors():
            try:
                await self._llm.add_lora(_lora(adapter))
            except EngineDeadError:
                raise
            except Exception as failure:
                raise AdapterRefused("The engine could not load the adapter.") from failure

    async def unload_adapter(self, adapter: Adapter) -> None:
        with _translated_errors():
            await self._llm.remove_lora(adapter.id)

    async def pause(self) -> None:
        with _translated_errors():
            await self._llm.pause_generation(mode="wait", clear_cache=True)

    async def reload(self, weights: Path, version: str) -> None:
        with _translated_errors():
            await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
            # The reload clears the image and encoder caches, but not the prefix cache of keys and values.
            await self._llm.reset_prefix_cache()
            await self._llm.update_weight_version(version)

    async def resume(self) -> None:
        with _translated_errors():
            await self._llm.resume_generation()

    async def probe(self) -> str:
        with _translated_errors():
            return await self._llm.get_weight_version()

    def busy(self) -> bool:
        try:
            processes = [one for first in self._processes for one in (first, *first.children(recursive=True))]
            computed = sum(sum(one.cpu_times()[:2]) for one in processes)
            wants = any(one.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP) for one in processes)
        except psutil.Error:  # one has ended
            return False
        share = (computed - self._computed) / (monotonic() - self._looked)
        self._computed, self._looked = computed, monotonic()
        return wants or share > _IDLE_SHARE

    def pixel_limits(self, profile: Profile) -> PixelLimits | None:
        return self._fitted.limits(profile)

    def seen_size(self, width: int, height: int, profile: Profile) -> tuple[int, int] | None:
        limits = self.pixel_limits(profile)
        if limits is None:
            return None
        rows, columns = smart_resize(height, width, limits.side, limits.smallest, limits.largest)
        return columns, rows

    def dead(self) -> bool:
        return self._llm.errored

    def shutdown(self) -> None:
        self._llm.shutdown()

    async def _ask(
        self, prompt: Prompt, sampling: Sampling, begun: tuple[int, ...], adapter: Adapter | None, priority: int
    ) -> RequestOutput:
        lora = _lora(adapter) if adapter else None
        limit = max_tokens(prompt.task, prompt.profile, sampling.limit or self._limit)
        asked = await self._rendered(prompt)
        self._check_room(len(asked["prompt_token_ids"]), limit)
        left = max(1, limit - len(begun) - (_SCORE_TOKENS if sampling.stop else 0))
        return await self._finish(_extended(asked, begun), _sampling_params(sampling, left), lora, priority)

    def _check_room(self, asked: int, limit: int) -> None:
        """Raises InvalidRequest if an answer of `limit` tokens does not fit behind a question of `asked` tokens."""
        if asked + limit > self._context:
            raise InvalidRequest(
                f"The question and its images take {asked:,} tokens, and its answer may take {limit:,}; together they "
                f"must be at most {self._context:,} (max_model_len). Send smaller images, allow shorter answers "
                "(max_answer_tokens), or serve with a larger max_model_len."
            )

    async def _finish(
        self, asked: Any, params: SamplingParams, lora: LoRARequest | None = None, priority: int = 0
    ) -> RequestOutput:
        number = f"{next(self._numbers)}"
        outputs = self._llm.generate(asked, params, request_id=number, lora_request=lora, priority=priority)
        last: RequestOutput | None = None
        async for output in outputs:
            last = output
        if last is None:
            raise EngineFailure("The engine gave no answer.")
        return last

    async def _rendered(self, prompt: Prompt) -> Any:
        """The prompt with its pictures as the model takes them. vLLM makes them in one thread: requests take turns."""
        request = preparing.get() or Queue()
        if ready := request.ahead.pop(_name(prompt), None):
            return ready
        ids = self._question(prompt.task, prompt.profile)
        asked: dict[str, Any] = {"prompt_token_ids": ids, "multi_modal_data": {"image": list(prompt.images)}}
        limits = self.pixel_limits(prompt.profile)
        if limits and limits != self._begun_with:  # a version was promoted whose answers are longer or shorter
            asked["mm_processor_kwargs"] = limits.options()
        async with self._turns.turn(request):
            [rendered] = await self._llm.renderer.render_cmpl_async([asked])
        return rendered

    def _question(self, task: Task, profile: Profile) -> list[int]:
        return self._spelling.ids(self._text(task, profile))

    def _render(self, task: Task, profile: Profile) -> str:
        """The question in the checkpoint's own chat template, with placeholders for the images."""
        messages = chat_messages(task, profile)
        return self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def set_environment() -> None:
    """Sets up CPU engines: no compilation, and one core fewer for the engine.

    Only small parts of the sampler would be compiled, which is not worth a compiler and seconds of start. One core is
    left to this process, which decodes pictures and serves HTTP: busy-waiting threads of both would slow each other.
    """
    if current_platform.is_cpu():
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
        torch.set_num_threads(1)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Translates vLLM's exceptions into the service's."""
    try:
        yield
    except EngineDeadError as death:
        raise EngineDead("The engine is dead; the service is about to restart.") from death
    except EngineGenerateError as failure:
        raise EngineFailure("The engine failed this request.") from failure
    except VLLMClientError as refusal:
        raise InvalidRequest("The images and the question do not fit into the engine's context.") from refusal


def engine_args(weights: Path, settings: Settings, limits: PixelLimits | None) -> AsyncEngineArgs:
    """The engine's arguments: priorities, adapters, and the needs of the CPU build."""
    return AsyncEngineArgs(
        model=str(weights),
        trust_remote_code=False,
        served_model_name=settings.model_name,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel_size,
        enforce_eager=settings.enforce_eager,
        **(_CPU if current_platform.is_cpu() else {}),
        max_num_batched_tokens=max(BATCHED_TOKENS, settings.max_model_len),
        limit_mm_per_prompt={"image": 2, "video": 0},
        mm_processor_kwargs=limits.options() if limits else None,
        enable_lora=True,
        max_loras=settings.max_loras,
        max_lora_rank=settings.max_lora_rank,
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
        use_tqdm_on_load=False,
    )


def _name(prompt: Prompt) -> tuple[object, ...]:
    """What a prepared prompt is known by, within its request."""
    return prompt.task, prompt.profile.name, *map(id, prompt.images)


def _sampling_params(sampling: Sampling, limit: int) -> SamplingParams:
    return SamplingParams(
        n=_distinct(sampling),
        temperature=sampling.temperature,
        seed=sampling.seed,
        max_tokens=limit,
        stop=sampling.stop or None,
        include_stop_str_in_output=bool(sampling.stop),
        logprobs=0 if sampling.logprobs else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _distinct(sampling: Sampling) -> int:
    """The number of answers to draw; one for greedy decoding, where vLLM refuses several."""
    return sampling.n if sampling.temperature > 0 else 1


def _lora(adapter: Adapter) -> LoRARequest:
    return LoRARequest(adapter.name, adapter.id, str(adapter.path))


def _generation(output: RequestOutput, n: int) -> Generation:
    samples = [_sample(answer) for answer in sorted(output.outputs, key=lambda answer: answer.index)]
    samples *= n // len(samples)
    return Generation(list(output.prompt_token_ids or []), samples, _versions(output.outputs))


def _versions(answers: Iterable[CompletionOutput]) -> frozenset[str]:
    return frozenset(span.version for answer in answers for span in answer.weight_versions or [])


def _steps(answer: CompletionOutput, ids: Mapping[str, list[int]]) -> list[Step]:
    names = {one: token for token in sorted(ids) for one in ids[token]}  # END is the first: a space is a space
    flat: Any = answer.logprobs
    steps = []
    for taken, begin, end in zip(answer.token_ids, flat.start_indices, flat.end_indices, strict=True):
        known = dict(zip(flat.token_ids[begin:end], flat.logprobs[begin:end], strict=True))
        probabilities = {token: min(1.0, sum(math.exp(known[one]) for one in ids[token])) for token in ids}
        steps.append(Step(names.get(taken, UNNAMED), probabilities))
    return steps


def _extended(rendered: Any, ids: Sequence[int]) -> Any:
    """A rendered prompt with the beginning of its answer."""
    return {**rendered, "prompt_token_ids": [*rendered["prompt_token_ids"], *ids]}


def _sample(answer: CompletionOutput) -> Sample:
    tokens: list[int] = list(answer.token_ids)
    steps: Any = answer.logprobs or []
    logprobs = [step[token].logprob for step, token in zip(steps, tokens, strict=False)]
    return Sample(answer.text, tokens, logprobs, str(answer.finish_reason))
