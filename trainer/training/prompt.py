"""Encoded prompts: what the language model is fed before the answers, pictures in place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from evoquality.contract import Task
from service.prompts import Profile, chat_messages

Pictures = Sequence[Image.Image]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One encoded prompt of P tokens."""

    token_ids: list[int]
    embeddings: Tensor
    """(P, width), visual tokens in place."""
    positions: Tensor
    """(3, P) rotary positions: time, height, width."""

    @property
    def next_position(self) -> Tensor:
        """() Where the answer begins: one past the largest position of any kind."""
        return self.positions.max() + 1


def encode(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    profile: Profile,
    task: Task,
    batch: Sequence[Pictures],
    *,
    gradient: bool = False,
) -> list[Prompt]:
    """Lays out the same task's prompt for every entry of the batch, one call of the vision tower for all pictures.

    Args:
        model: the Qwen2.5-VL without its head.
        processor: its tokenizer and image processor.
        profile: how the model answers.
        task: what is asked.
        batch: the pictures of each prompt, RGB.
        gradient: keep the graph of vision tower and embeddings, which full fine-tuning trains.
    """
    text = processor.apply_chat_template(chat_messages(task, profile), add_generation_prompt=True, tokenize=False)
    pictures = [picture for entry in batch for picture in entry]
    encoded = processor(
        text=[text] * len(batch), images=pictures, return_tensors="pt", padding=True, padding_side="right"
    ).to(model.device)
    ids, grids, there = encoded["input_ids"], encoded["image_grid_thw"], encoded["attention_mask"]
    positions, _ = model.get_rope_index(ids, encoded["mm_token_type_ids"], grids, attention_mask=there)
    with nullcontext() if gradient else torch.no_grad():
        embeddings = _with_pictures(model, ids, encoded["pixel_values"], grids)
    lengths = there.sum(1).tolist()
    return [
        Prompt(ids[row, :length].tolist(), embeddings[row, :length], positions[:, row, :length])
        for row, length in enumerate(lengths)
    ]


def _with_pictures(model: PreTrainedModel, ids: Tensor, pixels: Tensor, grids: Tensor) -> Tensor:
    visual = torch.cat(model.get_image_features(pixels, grids).pooler_output)
    embeddings = model.get_input_embeddings()(ids)
    places = (ids == model.config.image_token_id)[..., None]
    return embeddings.masked_scatter(places, visual.to(embeddings.dtype))
