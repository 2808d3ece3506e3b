"""The model from pictures to the log-probabilities of answers, as one module: what many processes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from evoquality.contract import Task
from service.prompts import Profile
from trainer.training import sharding
from trainer.training.logprobs import AnswerLogprobs, Answers, Logprobs
from trainer.training.prompt import Pictures, Prompt, encode

logging.disable_progress_bar()  # the stages show theirs

Pixels = Mapping[str, int | None]
"""`min_pixels` and `max_pixels` of the image processor; None: the checkpoint's own."""


class Network(nn.Module):
    """A Qwen2.5-VL over a checkpoint's weights. `vision_gradient`: whether prompts keep the graph of their pictures.
    `pixels`: the limits that pictures are scaled to."""

    def __init__(
        self,
        model: PreTrainedModel,
        checkpoint: Path,
        profile: Profile,
        *,
        vision_gradient: bool,
        pixels: Pixels | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.vision_gradient = vision_gradient
        self._processor = _processor(checkpoint, pixels or {})
        self._profile = profile
        self._logprobs = AnswerLogprobs(model.model.language_model, model.lm_head)

    def forward(self, task: Task, batch: Sequence[Pictures], answers: Sequence[Answers]) -> Logprobs:
        """Log-probabilities of K answers to the task over each entry's pictures."""
        return self._logprobs(self._encode(task, batch), answers)

    def encode_batch(self, task: Task, batch: Sequence[Pictures]) -> list[Prompt]:
        """See `prompt.encode`."""
        return self._encode(task, batch)

    def logprobs(self, prompts: Sequence[Prompt], answers: Sequence[Answers], *, temperature: float = 1.0) -> Logprobs:
        """See `AnswerLogprobs`."""
        return self._logprobs(prompts, answers, temperature=temperature)

    def recompute_activations(self) -> None:
        """Keeps no layer's inner activations for the backward pass, which computes them again: less memory, exact."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.train()  # which turns nothing else on: these models drop nothing out

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Moves it to the device: of every layer only the process's part, if there are many (or `dtype` is not the
        weights' own)."""
        layers = [*self.model.model.language_model.layers, *self.model.model.visual.blocks]
        sharding.place(self, layers, ("encode_batch", "logprobs"), device, dtype)

    def _encode(self, task: Task, batch: Sequence[Pictures]) -> list[Prompt]:
        return encode(self.model.model, self._processor, self._profile, task, batch, gradient=self.vision_gradient)


def _processor(checkpoint: Path, pixels: Pixels) -> ProcessorMixin:
    processor = AutoProcessor.from_pretrained(checkpoint)
    images = processor.image_processor
    smallest, largest = pixels.get("min_pixels"), pixels.get("max_pixels")
    if smallest or largest:
        images.size = {
            "shortest_edge": smallest or images.size["shortest_edge"],
            "longest_edge": largest or images.size["longest_edge"],
        }
    return processor


def load_model(checkpoint: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """The checkpoint's model, on the CPU; `dtype` "auto" is the checkpoint's own."""
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype)
