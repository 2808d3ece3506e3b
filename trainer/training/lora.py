"""`--policy lora`: an adapter on the language model, served beside the version that users are answered by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from transformers import PreTrainedModel

from evoquality.contract import Task
from service.prompts import Profile
from trainer.training import distributed, sharding
from trainer.training.logprobs import Answers, Logprobs
from trainer.training.network import Network, Pixels, load_model
from trainer.training.policy import Policy
from trainer.training.prompt import Pictures

LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Adapters go on the language model only: vLLM does not serve those of the vision tower faithfully."""


class LoraPolicy(Policy):
    """A frozen Qwen2.5-VL with a LoRA adapter in float32. With the adapter off it is the reference."""

    def __init__(
        self,
        checkpoint: Path,
        profile: Profile,
        *,
        rank: int,
        seed: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        pixels: Pixels | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self._config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LANGUAGE_LINEAR, bias="none")
        base = load_model(checkpoint, dtype)
        self._peft = self._adapted(base)
        network = Network(base, checkpoint, profile, vision_gradient=False, pixels=pixels)
        if recompute:
            network.recompute_activations()
        network.place(device, dtype)
        super().__init__(network, checkpoint, device)

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context the adapter is off: the model the round started from."""
        return self._peft.disable_adapter()

    def with_reference(
        self, task: Task, batch: Sequence[Pictures], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        prompts = self.encode_batch(task, batch)
        current = self.logprobs(prompts, answers)
        if not reference:
            return current, None
        with torch.no_grad(), self.reference():
            return current, self.logprobs(prompts, answers)

    def hand_over(self, directory: Path) -> None:
        """Writes the adapter as PEFT and vLLM read it."""
        state = sharding.gathered_weights(self._peft, trained_only=True)
        if distributed.leads():
            self._peft.save_pretrained(directory, state_dict=state)

    def save_weights(self, directory: Path) -> None:
        state = sharding.gathered_weights(self._peft, trained_only=True)
        if distributed.leads():
            merged = self._adapted(load_model(self._checkpoint, "auto"))
            set_peft_model_state_dict(merged, state)
            merged.merge_and_unload().save_pretrained(directory)

    def _adapted(self, base: PreTrainedModel) -> PeftModel:
        return get_peft_model(base, self._config)
