"""First step of the recipe: teach the vision tower what damage looks like.

Regresses the measured damage and names the distortion types of a picture from its pooled visual tokens. Pictures of one
size let the whole batch go through the tower as one tensor (`features`), several times faster than the
checkpoint's own forward, which loops over pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.fft import dct
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_position_ids

from trainer.demo.pictures import KINDS, Pictures

GRID = 8
"""Patches a side of a 112-pixel picture."""
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def patches(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, 112, 112, 3) 8-bit -> (B, 64, 1176), as the checkpoint's image processor would make them."""
    images = (torch.from_numpy(pixels).float() / 255 - _MEAN) / _STD
    blocks = images.view(-1, GRID // 2, 2, 14, GRID // 2, 2, 14, 3)
    merged = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, GRID * GRID, 3, 1, 14 * 14)
    return merged.expand(-1, -1, -1, 2, -1).reshape(-1, GRID * GRID, 3 * 2 * 14 * 14)


def features(visual: Qwen2_5_VisionTransformerPretrainedModel, patches: Tensor) -> Tensor:
    """(B, 64, 1176) -> (B, 64, width): the tower before its merger. One 112-pixel picture is one window."""
    batch = len(patches)
    hidden = functional.linear(patches, visual.patch_embed.proj.weight.flatten(1)).float()
    positions = get_vision_position_ids(torch.tensor([[1, GRID, GRID]]), 2, kwargs={})
    cosine, sine = visual.rotary_pos_emb(hidden, positions)
    for block in visual.blocks:
        qkv = block.attn.qkv(block.norm1(hidden)).view(batch, GRID * GRID, 3, block.attn.num_heads, -1)
        query, key, value = qkv.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cosine, sine)
        with torch.autocast("cpu", enabled=False):  # attention's bfloat16 backward is slower than float32's
            mixed = functional.scaled_dot_product_attention(
                *(tensor.transpose(1, 2).float() for tensor in (query, key, value))
            )
        hidden = hidden + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.norm2(hidden))
    return hidden


def merge(visual: Qwen2_5_VisionTransformerPretrainedModel, hidden: Tensor) -> Tensor:
    """(B, 64, width) -> (B, 16, language width): the visual tokens the language model sees."""
    return visual.merger(hidden.flatten(0, 1)).view(len(hidden), GRID * GRID // 4, -1)


@torch.no_grad()
def whiten_patch_embedding(visual: Qwen2_5_VisionTransformerPretrainedModel, sample: NDArray[np.uint8]) -> None:
    """Starts the patch embedding as cosine transforms (DCT-II) of equal variance on a sample of pictures.

    In natural pictures coarse detail outweighs fine detail a hundredfold, and damage shows in the fine: from a
    random start the tower spends its first thousand steps finding that out.
    """
    weight = visual.patch_embed.proj.weight
    filters = torch.zeros(len(weight), 3, 2, 14, 14)
    waves = dct(np.eye(14), norm="ortho", axis=0)
    by_frequency = sorted(np.ndindex(14, 14), key=lambda place: (sum(place), place))
    chroma = torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    colour_filters = len(weight) // 8
    luma_places = np.linspace(0, len(by_frequency) - 1, len(weight) - 2 * colour_filters).astype(int)
    for number, place in enumerate(luma_places):
        row, column = by_frequency[place]
        filters[number] = torch.from_numpy(np.outer(waves[row], waves[column])).float() / 3
    for number in range(2 * colour_filters):
        row, column = by_frequency[number // 2]
        wave = torch.from_numpy(np.outer(waves[row], waves[column])).float()
        filters[len(luma_places) + number] = chroma[number % 2][:, None, None, None] * wave
    responses = functional.linear(patches(sample), filters.flatten(1)).flatten(0, 1)
    weight.copy_(filters / responses.std(0)[:, None, None, None, None])


def pretrain(
    visual: Qwen2_5_VisionTransformerPretrainedModel,
    taught: Pictures,
    held_back: Pictures,
    *,
    steps: int,
    batch: int = 96,
    learning_rate: float = 6e-4,
    seed: int,
    progress: Progress,
) -> float:
    """Trains the tower in place; returns the SRCC of its predictions on the held-back pictures."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    whiten_patch_embedding(visual, taught.pixels[:: max(1, len(taught.pixels) // 500)])
    head = nn.Linear(visual.config.out_hidden_size, 1 + len(KINDS))
    parameters = [*visual.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.06)
    bar = progress.add_task("vision tower", total=steps)
    for step in range(1, steps + 1):
        rows = rng.integers(0, len(taught.quality), batch)
        quality, kinds = _predict(visual, head, _augmented(taught.pixels[rows], rng))
        loss = functional.smooth_l1_loss(quality, torch.from_numpy(taught.measured[rows])) * 2
        loss = loss + 2 * functional.binary_cross_entropy_with_logits(
            kinds, torch.from_numpy(taught.kinds[rows]).float()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress.advance(bar)
        if step % 100 == 0:
            progress.console.print(
                f"tower step {step}: loss {loss.item():.3f}, held-back SRCC {_srcc(visual, head, held_back):.3f}"
            )
    return _srcc(visual, head, held_back)


def _predict(
    visual: Qwen2_5_VisionTransformerPretrainedModel, head: nn.Linear, pixels: NDArray[np.uint8]
) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        pooled = merge(visual, features(visual, patches(pixels))).mean(1)
    predicted = head(pooled.float())
    return predicted[:, 0] + 3, predicted[:, 1:]


def _augmented(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirrored and turned pictures have the same quality."""
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    if rng.random() < 0.5:
        pixels = pixels.swapaxes(1, 2)
    return np.ascontiguousarray(pixels)


@torch.no_grad()
def _srcc(visual: Qwen2_5_VisionTransformerPretrainedModel, head: nn.Linear, pictures: Pictures) -> float:
    chunks = np.array_split(pictures.pixels, max(1, len(pictures.pixels) // 256))
    predicted = torch.cat([_predict(visual, head, chunk)[0] for chunk in chunks])
    return float(spearmanr(predicted.numpy(), pictures.measured).statistic)
