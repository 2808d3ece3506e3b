"""`--policy full`: every weight under training, as in the paper; a rollout engine is overwritten with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

from evoquality.contract import Task
from service.prompts import Profile
from trainer.training import distributed, sharding
from trainer.training.logprobs import Answers, Logprobs
from trainer.training.network import Network, Pixels, load_model
from trainer.training.policy import Policy
from trainer.training.prompt import Pictures


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
