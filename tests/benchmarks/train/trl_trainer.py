"""TRL's GRPOTrainer on a setting, as a program: `python -m tests.benchmarks.train.trl_trainer SETTING OUT`.

Model, adapter, pictures, labels, reward, K, answer length, clipping, beta and precision equal this trainer's. Rollouts
use transformers' `generate`, TRL's only way for such a model on a CPU: its continuous batching refuses vision-language
models, colocated vLLM cannot load weights on a CPU ("'Parameter' object has no attribute 'weight_loader'"), and a
vLLM server receives weights only by NCCL. No gradient checkpointing; passes of 16 answers (8, 64 and one thread were
not faster).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from service.answers import parse_score
from service.prompts import max_tokens, question
from tests.benchmarks.train.passes import VISUAL_TOKENS
from tests.benchmarks.train.steps import (
    BETA,
    CLIP_HIGH,
    CLIP_LOW,
    GAMMA,
    IMAGES,
    LEARNING_RATE,
    PROFILE,
    RANK,
    SAMPLES,
    Setting,
)
from trainer.training.policy import LANGUAGE_LINEAR
from trainer.training.reward import rewards

PASS = 16
"""Answers in one forward and backward pass."""
LOGGED = ("loss", "grad_norm", "reward", "reward_std", "frac_reward_zero_std", "kl", "num_tokens")


class FidelityReward:
    """The same fidelity reward over all pictures of a step: TRL calls it once per batch."""

    __name__ = "fidelity"

    def __init__(self, setting: Setting) -> None:
        self._labels = setting.labels

    def __call__(self, completions: list[Any], image_id: list[str], **_: Any) -> list[float | None]:
        scores = [parse_score(completion[0]["content"], PROFILE) for completion in completions]
        sampled = np.array([np.nan if score is None else score for score in scores]).reshape(IMAGES, SAMPLES)
        group = image_id[::SAMPLES]
        labels = np.array([[self._labels.get((one, other), np.nan) for other in group] for one in group])
        return [float(reward) if np.isfinite(reward) else None for reward in rewards(sampled, labels, GAMMA).ravel()]


class Watch(TrainerCallback):
    """Records the seconds of each step and TRL's log."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append({"seconds": time.perf_counter() - self._began})

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **__: Any) -> None:
        if "reward" in logs:
            self.steps[-1].update({name: logs[name] for name in LOGGED})


def trainer(setting: Setting) -> GRPOTrainer:
    """TRL's trainer with one optimizer step per group of the setting."""
    prompt = [{"role": "user", "content": question("score", PROFILE)}]
    rows = [
        {"prompt": prompt, "image": setting.pool.open(image), "image_id": image}
        for group in setting.groups
        for image in group
    ]
    processor = AutoProcessor.from_pretrained(setting.checkpoint, padding_side="left", trust_remote_code=False)
    grid = processor.image_processor(rows[0]["image"], return_tensors="pt")["image_grid_thw"]
    assert int(grid.prod()) // 4 == VISUAL_TOKENS
    return GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(
            setting.checkpoint, dtype=torch.float32, trust_remote_code=False
        ),
        reward_funcs=FidelityReward(setting),
        args=_config(setting),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LANGUAGE_LINEAR, bias="none"),
    )


def _config(setting: Setting) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(setting.folder / "trl"),
        max_steps=len(setting.groups),
        num_generations=SAMPLES,
        max_completion_length=max_tokens("score", PROFILE),
        per_device_train_batch_size=PASS,
        gradient_accumulation_steps=IMAGES * SAMPLES // PASS,
        gradient_checkpointing=False,
        learning_rate=LEARNING_RATE,
        beta=BETA,
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        temperature=1.0,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )


def main() -> None:
    """Trains, and writes one JSON object per step."""
    training, watch = trainer(Setting(Path(sys.argv[1]))), Watch()
    training.add_callback(watch)
    training.train()
    Path(sys.argv[2]).write_text("".join(json.dumps(step) + "\n" for step in watch.steps))


if __name__ == "__main__":
    main()
