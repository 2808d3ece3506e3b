"""The trainer's own torch copy of the policy: log-probabilities, gradients, and what becomes of its weights."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from evoquality.contract import Task
from service.versions.store import MANIFEST
from trainer.training import distributed, sharding
from trainer.training.logprobs import Answers, Logprobs
from trainer.training.network import Network
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
