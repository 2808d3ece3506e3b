"""The model from pictures to the log-probabilities of answers, as one module that many processes can share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from service.prompts import Profile, chat_messages, question
from trainer.errors import UnsupportedModel
from trainer.training import sharding
from trainer.training.logprobs import AnswerLogprobs, Answers, Logprobs, States
from trainer.training.self_check import ADVICE, WAYS, SelfCheck, Subject, self_check
from trainer.training.shared_prefix import Prompt

logging.disable_progress_bar()  # the stages show their own

Pixels = Mapping[str, int | None]
"""`min_pixels` and `max_pixels` of the image processor; None: the checkpoint's own."""

_PARTS = ("language_model", "visual", "get_rope_index", "get_image_features")


class PolicyNetwork(nn.Module):
    """A Qwen2.5-VL over a checkpoint's weights. None of the methods that FSDP2 hooks (`sharding.place`) calls another.

    Args:
        model: with its language head.
        checkpoint: the directory of the processor.
        profile: the format of the answers.
        vision_gradient: True keeps the graph of vision tower and embeddings, for full fine-tuning.
        pixels: the limits that pictures are scaled to.
    """

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

    def forward(self, pictures: Sequence[Image.Image], answers: Sequence[Answers]) -> Logprobs:
        """Log-probabilities of K answers to the score prompt over each RGB picture."""
        return self._logprobs(self._encode(pictures), answers)

    def encode(self, pictures: Sequence[Image.Image]) -> list[Prompt]:
        """The score prompt over each RGB picture; see `encode_scores`."""
        return self._encode(pictures)

    def logprobs(self, prompts: Sequence[Prompt], answers: Sequence[Answers]) -> Logprobs:
        """Log-probabilities of K answers to each prompt; see `AnswerLogprobs`."""
        return self._logprobs(prompts, answers)

    def prompt_ids(self, picture: Image.Image) -> list[int]:
        """The token ids of the score prompt over a picture; computes nothing with the weights."""
        encoded = score_inputs(self._processor, self._profile, [picture], torch.device("cpu"))
        return list(encoded["input_ids"][0].tolist())

    @property
    def states(self) -> States:
        """How log-probabilities are computed."""
        return self._logprobs.states

    @states.setter
    def states(self, states: States) -> None:
        self._logprobs.states = states

    def self_check(self, pictures: Sequence[Image.Image]) -> SelfCheck:
        """Chooses how log-probabilities are computed; see `self_check`. Prompts of several lengths check the padding.

        Raises:
            UnsupportedModel: no way gives the model's own.
        """
        inputs = [score_inputs(self._processor, self._profile, [picture], self.model.device) for picture in pictures]
        words = self._processor.tokenizer(f"{question('score', self._profile)} 0123456789")["input_ids"]
        ordinary = sorted(set(words) - set(self._processor.tokenizer.all_special_ids))
        found = self_check(Subject(self.model, partial(self._encode, pictures), inputs, ordinary))
        self.states = WAYS[found.way]
        return found

    def recompute_activations(self) -> None:
        """Discards each layer's inner activations and computes them again in the backward pass: less memory, exact."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model.train()  # has no other effect: these models have no dropout

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Moves the module to the device. With many processes (or a `dtype` other than that of the weights) each takes
        its part of every layer."""
        layers = [*self.model.model.language_model.layers, *self.model.model.visual.blocks]
        sharding.place(self, layers, ("encode", "logprobs", "self_check"), device, dtype)

    def _encode(self, pictures: Sequence[Image.Image]) -> list[Prompt]:
        return encode_scores(self.model.model, self._processor, self._profile, pictures, gradient=self.vision_gradient)


def load_model(checkpoint: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """The checkpoint's model, on the CPU; `dtype` "auto" is the checkpoint's own.

    Raises:
        UnsupportedModel: it is not made of the parts that the trainer computes with.
    """
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype, trust_remote_code=False)
    if lacks := [part for part in _PARTS if not hasattr(getattr(model, "model", None), part)]:
        raise UnsupportedModel(f"{type(model).__name__} cannot be trained: it has no {', '.join(lacks)}; {ADVICE}")
    return model


def encode_scores(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    profile: Profile,
    pictures: Sequence[Image.Image],
    *,
    gradient: bool,
) -> list[Prompt]:
    """Encodes the score prompt over each picture, with one call of the vision tower for all.

    Args:
        model: the Qwen2.5-VL without its head.
        processor: its tokenizer and image processor.
        profile: the format of the answers.
        pictures: RGB.
        gradient: keep the graph of vision tower and embeddings.
    """
    encoded = score_inputs(processor, profile, pictures, model.device)
    ids, grids, there = encoded["input_ids"], encoded["image_grid_thw"], encoded["attention_mask"]
    positions, _ = model.get_rope_index(ids, encoded["mm_token_type_ids"], grids, attention_mask=there)
    with nullcontext() if gradient else torch.no_grad():
        embeddings = _with_pictures(model, ids, encoded["pixel_values"], grids)
    lengths = there.sum(1).tolist()
    return [
        Prompt(ids[row, :length].tolist(), embeddings[row, :length], positions[:, row, :length])
        for row, length in enumerate(lengths)
    ]


def score_inputs(
    processor: ProcessorMixin, profile: Profile, pictures: Sequence[Image.Image], device: torch.device
) -> BatchFeature:
    """The processor's inputs for the score prompt over each RGB picture, padded on their right."""
    text = processor.apply_chat_template(chat_messages("score", profile), add_generation_prompt=True, tokenize=False)
    return processor(
        text=[text] * len(pictures), images=list(pictures), return_tensors="pt", padding=True, padding_side="right"
    ).to(device)


def _with_pictures(model: PreTrainedModel, ids: Tensor, pixels: Tensor, grids: Tensor) -> Tensor:
    visual = torch.cat(model.get_image_features(pixels, grids).pooler_output)
    embeddings = model.get_input_embeddings()(ids)
    places = (ids == model.config.image_token_id)[..., None]
    return embeddings.masked_scatter(places, visual.to(embeddings.dtype))


def _processor(checkpoint: Path, pixels: Pixels) -> ProcessorMixin:
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    images = processor.image_processor
    smallest, largest = pixels.get("min_pixels"), pixels.get("max_pixels")
    if smallest or largest:
        images.size = {
            "shortest_edge": smallest or images.size["shortest_edge"],
            "longest_edge": largest or images.size["longest_edge"],
        }
    return processor
