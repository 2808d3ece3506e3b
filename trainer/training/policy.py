"""The trainer's own torch copy of the policy: log-probabilities, gradients, and what becomes of its weights."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from service.contract import InfoResponse, Task
from service.prompts import Profile
from service.versions.store import MANIFEST
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed, sharding
from trainer.training.logprobs import Answers, Logprobs
from trainer.training.network import Network, Pixels, load_model
from trainer.training.prompt import Pictures, Prompt

_WEIGHTS = "model"
"""How the names of weight files and of their index begin: model.safetensors, model-00001-of-00005.safetensors."""


class Policy(ABC):
    """A Qwen2.5-VL under training and the frozen model it began as. Under torchrun each process holds a part of both;
    methods that gather the parts must be called by all, and write on rank 0 alone."""

    def __init__(self, network: Network, checkpoint: Path, device: str) -> None:
        self.network = network
        self.device = device
        self._checkpoint = checkpoint

    def trainable(self) -> list[nn.Parameter]:
        """The parameters under training, in a stable order."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def encode(self, task: Task, pictures: Pictures) -> Prompt:
        """The prompt of one task over its pictures (RGB)."""
        return self.encode_batch(task, [pictures])[0]

    def encode_batch(self, task: Task, batch: Sequence[Pictures]) -> list[Prompt]:
        """The prompts of several, all their pictures through the vision tower at once."""
        return self.network.encode_batch(task, batch)

    def logprobs(self, prompts: Sequence[Prompt], answers: Sequence[Answers], *, temperature: float = 1.0) -> Logprobs:
        """Log-probabilities of K answers to each prompt; see `AnswerLogprobs`."""
        return self.network.logprobs(prompts, answers, temperature=temperature)

    @abstractmethod
    def with_reference(
        self, task: Task, batch: Sequence[Pictures], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        """Log-probabilities of K answers to the task over each entry's pictures.

        Returns:
            Those under the policy, with gradients, and those under the frozen model it began as if `reference`.
        """

    @abstractmethod
    def hand_over(self, directory: Path) -> None:
        """Writes what the engine that samples rollouts loads."""

    @abstractmethod
    def save_weights(self, directory: Path) -> None:
        """Writes all weights, adapters merged, under the names and in the types of the checkpoint."""

    def save_checkpoint(self, directory: Path) -> None:
        """Writes a checkpoint that stands alone: all but the weights is copied from the one it came from."""
        self.save_weights(directory)
        if not distributed.leads():
            return
        for file in self._checkpoint.iterdir():
            if not file.name.startswith(_WEIGHTS) and file.name != MANIFEST:
                shutil.copy(file, directory)

    def state(self) -> dict[str, Tensor]:
        """The weights under training, whole and on the CPU, by name; empty on other ranks than 0."""
        return sharding.gathered_weights(self.network, trained_only=True)

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what rank 0's `state` gave, in however many processes."""
        sharding.scatter_weights(self.network, state)

    def gradient_norm(self, limit: float) -> float:
        """The Euclidean norm of all gradients, which are scaled down to `limit` if it is larger."""
        return float(sharding.whole(torch.nn.utils.clip_grad_norm_(self.trainable(), limit)))


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


class FullPolicy(Policy):
    """A Qwen2.5-VL with float32 weights, and beside it the frozen model it began as, in `dtype`.

    Language model and merger are trained; the vision tower only if `train_vision`.
    """

    def __init__(
        self,
        checkpoint: Path,
        profile: Profile,
        *,
        train_vision: bool = False,
        device: str = "cpu",
        reference_device: str | None = None,
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        pixels: Pixels | None = None,
    ) -> None:
        model = load_model(checkpoint, torch.float32)
        if not train_vision:
            _freeze_tower(model)
        network = Network(model, checkpoint, profile, vision_gradient=True, pixels=pixels)
        if recompute:
            network.recompute_activations()
        network.place(device, dtype)
        super().__init__(network, checkpoint, device)
        self._load_reference = partial(_frozen, checkpoint, profile, dtype, reference_device or device, pixels)

    @cached_property
    def _reference(self) -> Network:
        """Loaded when it is first asked: without a KL penalty it never is."""
        return self._load_reference()

    def with_reference(
        self, task: Task, batch: Sequence[Pictures], answers: Sequence[Answers], *, reference: bool = True
    ) -> tuple[Logprobs, Logprobs | None]:
        current = self.network(task, batch, answers)
        if not reference:
            return current, None
        with torch.no_grad():
            frozen = self._reference(task, batch, answers)
        return current, frozen._replace(chosen=frozen.chosen.to(self.device))

    def hand_over(self, directory: Path) -> None:
        """Writes all weights as safetensors."""
        self.save_weights(directory)

    def save_weights(self, directory: Path) -> None:
        state = sharding.gathered_weights(self.network.model, trained_only=False)
        if distributed.leads():
            dtype = _dtype(self._checkpoint)
            state = {name: tensor.to(dtype) for name, tensor in state.items()}
            self.network.model.save_pretrained(directory, state_dict=state)


def _frozen(checkpoint: Path, profile: Profile, dtype: torch.dtype, device: str, pixels: Pixels | None) -> Network:
    model = load_model(checkpoint, dtype).requires_grad_(False)
    network = Network(model, checkpoint, profile, vision_gradient=False, pixels=pixels)
    network.place(device, dtype)
    return network


def _freeze_tower(model: PreTrainedModel) -> None:
    """All of the vision tower but the merger, which leads into the language model."""
    model.model.visual.requires_grad_(False)
    model.model.visual.merger.requires_grad_(True)


def _dtype(checkpoint: Path) -> torch.dtype:
    """The type that the checkpoint's weights have, and those of an engine that loaded it."""
    return AutoConfig.from_pretrained(checkpoint).dtype or torch.float32


def load_policy(
    checkpoint: Path, profile: Profile, settings: EvolveSettings, seed: int, engine: InfoResponse
) -> Policy:
    """The policy at the beginning of a round. `seed` draws the adapter's first weights; `engine` samples
    its rollouts, and scales pictures as the policy must."""
    torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // 2 // distributed.neighbours()))
    pixels = {"min_pixels": engine.min_pixels, "max_pixels": engine.max_pixels}
    dtype = getattr(torch, settings.dtype)
    if settings.policy == "full":
        return FullPolicy(
            checkpoint, profile, train_vision=settings.train_vision, device=settings.device,
            reference_device=settings.reference_device, dtype=dtype,
            recompute=settings.gradient_checkpointing, pixels=pixels,
        )  # fmt: skip
    return LoraPolicy(
        checkpoint, profile, rank=settings.rank, seed=seed, device=settings.device, dtype=dtype,
        recompute=settings.gradient_checkpointing, pixels=pixels,
    )  # fmt: skip
