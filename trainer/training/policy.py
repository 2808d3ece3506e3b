"""The trainer's own torch copy of the policy: log-probabilities, gradients, the adapter under training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from service.contract import Task
from service.prompts import Profile
from service.versions.store import MANIFEST
from trainer.training.logprobs import AnswerLogprobs, Answers, Logprobs
from trainer.training.prompt import Pictures, Prompt, encode

_WEIGHTS = "model"
"""How the names of weight files and of their index begin: model.safetensors, model-00001-of-00005.safetensors."""
LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Adapters go on the language model only: vLLM does not serve those of the vision tower faithfully."""


class Policy:
    """A Qwen2.5-VL with a LoRA adapter. With the adapter off it is the frozen reference."""

    def __init__(self, checkpoint: Path, profile: Profile, *, rank: int, seed: int, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto").to(device)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LANGUAGE_LINEAR, bias="none")
        self._checkpoint = checkpoint
        self._peft: PeftModel = get_peft_model(base, config)
        self._model = base.model
        self._logprobs = AnswerLogprobs(self._model.language_model, base.lm_head)
        self._processor = AutoProcessor.from_pretrained(checkpoint)
        self._profile = profile
        self.device = device

    def trainable(self) -> list[Tensor]:
        """The adapter's tensors, in a stable order."""
        return [parameter for parameter in self._peft.parameters() if parameter.requires_grad]

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context the adapter is off: the model the round started from."""
        return self._peft.disable_adapter()

    def encode(self, task: Task, pictures: Pictures) -> Prompt:
        """The prompt of one task over its pictures (RGB)."""
        return self.encode_batch(task, [pictures])[0]

    def encode_batch(self, task: Task, batch: Sequence[Pictures]) -> list[Prompt]:
        """The prompts of several, all their pictures through the frozen vision tower at once."""
        return encode(self._model, self._processor, self._profile, task, batch)

    def logprobs(self, prompts: Sequence[Prompt], answers: Sequence[Answers], *, temperature: float = 1.0) -> Logprobs:
        """Log-probabilities of K answers to each prompt; see `AnswerLogprobs`."""
        return self._logprobs(prompts, answers, temperature=temperature)

    def save_adapter(self, directory: Path) -> None:
        """Writes the adapter as PEFT and vLLM read it."""
        self._peft.save_pretrained(directory)

    def state(self) -> dict[str, Tensor]:
        """The adapter's weights by name."""
        return get_peft_model_state_dict(self._peft)

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        set_peft_model_state_dict(self._peft, state)

    def save_checkpoint(self, directory: Path) -> None:
        """Merges the adapter into the weights and writes a checkpoint that stands alone. Ends this policy's use.

        Everything but the weights is copied from the checkpoint it came from.
        """
        self._peft.merge_and_unload().save_pretrained(directory)
        for file in self._checkpoint.iterdir():
            if not file.name.startswith(_WEIGHTS) and file.name != MANIFEST:
                shutil.copy(file, directory)
