"""Shared prefix against one row an answer: a group's log-probabilities, forward and backward, as a ratio."""

from __future__ import annotations

import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from service.prompts import PROFILES
from trainer.demo.architecture import build_model, build_processor
from trainer.training import repeated_prefix, shared_prefix
from trainer.training.logprobs import States, answer_logprobs
from trainer.training.lora import LANGUAGE_LINEAR
from trainer.training.prompt import Prompt, encode

ANSWER = [300, 301, 302, 303, 304, 2]
REPEATS = 7


def main() -> None:
    """Prints medians and their ratio."""
    processor = build_processor()
    model = build_model(processor, seed=0)
    get_peft_model(model, LoraConfig(r=32, lora_alpha=64, target_modules=LANGUAGE_LINEAR))
    shared_prefix.install(model.model.language_model)
    [prompt] = encode(model.model, processor, PROFILES["plain"], "score", [[Image.new("RGB", (112, 112), "gray")]])
    for samples in (8, 32):
        fast, slow = _medians(model, prompt, samples)
        print(
            f"shared prefix of {len(prompt.token_ids)} tokens, K = {samples}: {fast * 1e3:.0f} ms; "
            f"one row each: {slow * 1e3:.0f} ms; {slow / fast:.1f}x"
        )


def _medians(model: Qwen2_5_VLForConditionalGeneration, prompt: Prompt, samples: int) -> list[float]:
    times: dict[States, list[float]] = {shared_prefix.states: [], repeated_prefix.states: []}
    for _ in range(REPEATS):
        for states, taken in times.items():
            began = time.perf_counter()
            found = answer_logprobs(states, model.model.language_model, model.lm_head, [prompt], [[ANSWER] * samples])
            torch.autograd.backward(found.chosen.sum())
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times.values()]


if __name__ == "__main__":
    main()
