"""The update of one GRPO step at Qwen2.5-VL-7B's true dimensions, random weights, on one GPU.

    python -m tests.benchmarks.gpu_step [--images 4] [--out gpu_step.json]
    python -m tests.benchmarks.gpu_step --tiny      the same at toy dimensions on the CPU

Measures LoRA and full fine-tuning, shared and repeated prefix, K = 8 and 32, in bfloat16: peak memory, seconds, tokens
per second and the share of the peak FLOP/s. Rollouts are not part of it. A row that does not fit is reported.

Needs torch, torchvision, transformers, peft and pydantic; neither vLLM nor a network.

Dimensions: config.json of Qwen/Qwen2.5-VL-7B-Instruct (Qwen2.5-VL Technical Report, arXiv 2502.13923, table 1).
Full fine-tuning keeps weights, gradients, both moments of AdamW and the frozen reference in bfloat16: 83 GB for 8.3
billion parameters. With weights and moments in float32 it needs about 150 GB: several GPUs, under torchrun.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.benchmarks.sizes import PUBLISHED, SPECIAL_IDS
from tests.benchmarks.train.passes import (
    ANSWER,
    PROMPT,
    VISUAL_TOKENS,
    Kind,
    Prefix,
    random_answers,
    random_prompt,
    repeated,
    shared,
    step_flops,
)
from trainer.training.grpo import group_loss
from trainer.training.logprobs import AnswerLogprobs
from trainer.training.losses import Dapo
from trainer.training.policy import LANGUAGE_LINEAR

RANK, BETA = 32, 0.05
BF16_PEAK = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOP/s of the makers' data sheets (SXM); any other device's is measured by a large product."""
KINDS: tuple[Kind, ...] = ("lora", "full")
PREFIXES: tuple[Prefix, ...] = ("shared", "repeated")
TINY_IDS = {name: place for place, name in enumerate(SPECIAL_IDS, start=3)}


@dataclass(frozen=True, slots=True)
class Row:
    """Measurement of one update."""

    policy: Kind
    prefix: Prefix
    samples: int
    seconds: float
    peak_gib: float
    """Peak GPU memory; 0 on a CPU."""
    tokens_per_second: float
    """Tokens of all prompts and answers, counting a prompt for every answer, however they are computed."""
    tflops: float
    """10^12 model FLOPs, see `passes.step_flops`."""
    peak_share: float


def true_config() -> Qwen2_5_VLConfig:
    """Qwen2.5-VL-7B: 28 language layers 3,584 wide, 32 vision layers 1,280 wide."""
    return PUBLISHED["7B"]


def tiny_config() -> Qwen2_5_VLConfig:
    """The same architecture at toy dimensions, for a test on a CPU."""
    config = true_config()
    text, vision = config.text_config.to_dict(), config.vision_config.to_dict()
    text |= {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    text["rope_parameters"] |= {"mrope_section": [2, 3, 3]}
    vision |= {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **TINY_IDS, tie_word_embeddings=False)


class Update:
    """Model, reference and optimizer; `step` is one update."""

    def __init__(self, config: Qwen2_5_VLConfig, kind: Kind, device: str, dtype: torch.dtype) -> None:
        self._config, self._kind, self._device, self.dtype = config, kind, device, dtype
        self._model = random_model(config, device, dtype)
        self._reference = self._model
        if kind == "lora":
            adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LANGUAGE_LINEAR, bias="none")
            self._peft = get_peft_model(self._model, adapter)
        else:
            self._reference = random_model(config, device, dtype).requires_grad_(False)
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
        self._logprobs = {
            id(model): AnswerLogprobs(model.model.language_model, model.lm_head)
            for model in (self._model, self._reference)
        }

    def step(self, prefix: Prefix, images: int, samples: int) -> None:
        """One update with the trainer's loss on random answers; one backward pass per image."""
        for _ in range(images):
            prompt = random_prompt(self._config, self._device, self.dtype)
            answers = random_answers(self._config, samples, self._device)
            current = self._answers(self._model, prefix, prompt, answers)[None]
            with torch.no_grad(), self._frozen():
                reference = self._answers(self._reference, prefix, prompt, answers)[None]
            advantages, mask = torch.randn(1, samples, device=self._device), torch.ones_like(current)
            loss = group_loss(current, current.detach(), reference, advantages, mask, beta=BETA, loss=Dapo()).loss
            torch.autograd.backward(loss / (images * mask.sum()))
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _answers(self, model: PreTrainedModel, prefix: Prefix, prompt: Any, answers: Tensor) -> Tensor:
        if prefix == "repeated":
            return repeated(model, prompt, answers)
        return shared(model, self._logprobs[id(model)], prompt, answers, vision_gradient=self._kind == "full")

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        if self._kind == "full":
            yield
        else:
            with self._peft.disable_adapter():
                yield


def random_model(config: Qwen2_5_VLConfig, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model with random weights, allocated directly on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """Peak FLOP/s of the device, by its name or measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    known = [peak for gpu, peak in BF16_PEAK.items() if gpu in name]
    if known:
        return known[0]
    side = 8192 if device == "cuda" else 512
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(_seconds(lambda: matrix @ matrix, device) for _ in range(10))


def _seconds(work: Callable[[], object], device: str) -> float:
    """Seconds until the device has finished."""
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    finish()
    began = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - began


def measure(update: Update, config: Any, kind: Kind, prefix: Prefix, samples: int, images: int, device: str) -> Row:
    """Median of three updates after a warm-up (one on a CPU). Raises torch.OutOfMemoryError."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    update.step(prefix, images, samples)
    repeats = 3 if device == "cuda" else 1
    seconds = statistics.median(_seconds(lambda: update.step(prefix, images, samples), device) for _ in range(repeats))
    shape = {"patches": 4 * VISUAL_TOKENS, "prompt": PROMPT, "samples": samples, "answer": ANSWER}
    flops = images * step_flops(config, kind, prefix, **shape)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    share = flops / seconds / matrix_peak(device, update.dtype)
    return Row(
        kind, prefix, samples, seconds, peak, images * samples * (PROMPT + ANSWER) / seconds, flops / 1e12, share
    )


def run(tiny: bool, images: int, console: Console) -> list[Row]:
    """All rows that fit into memory."""
    device, config = ("cpu", tiny_config()) if tiny else ("cuda", true_config())
    dtype = torch.float32 if tiny else torch.bfloat16
    rows: list[Row] = []
    for kind in KINDS:
        update = Update(config, kind, device, dtype)
        for samples, prefix in product((2, 4) if tiny else (8, 32), PREFIXES):
            try:
                rows.append(measure(update, config, kind, prefix, samples, images, device))
                console.print(rows[-1])
            except torch.OutOfMemoryError as error:
                console.print(f"{kind}, {prefix}, K = {samples} does not fit: {error}", style="red")
        del update
        gc.collect()
        if not tiny:
            torch.cuda.empty_cache()
    return rows


def main(
    tiny: Annotated[bool, typer.Option(help="Toy dimensions and K on the CPU, float32.")] = False,
    images: Annotated[int, typer.Option(help="Pictures per step (the paper: 4 per GPU).")] = 4,
    out: Annotated[Path, typer.Option(help="Output file.")] = Path("runs/bench/gpu_step.json"),
) -> None:
    """Measures one update at the true dimensions of Qwen2.5-VL-7B, random weights, and prints a table."""
    console = Console()
    rows = run(tiny, images, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    table = Table("policy", "prefix", "K", "seconds", "peak GiB", "tokens/s", "TFLOP", "of peak")
    for row in rows:
        figures = (f"{row.seconds:.3f}", f"{row.peak_gib:.1f}", f"{row.tokens_per_second:.0f}", f"{row.tflops:.3g}")
        table.add_row(row.policy, row.prefix, str(row.samples), *figures, f"{row.peak_share:.1%}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
