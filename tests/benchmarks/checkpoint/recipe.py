"""`make checkpoint`: trains the embedded checkpoint from scratch.

    python -m tests.benchmarks.checkpoint.recipe [--out trainer/demo/checkpoint] [--contents 4200] ...

1. Makes damaged pictures with their ground truth.
2. Trains the vision tower (`pretrain`) to regress the measured damage and to classify distortion types from pooled
   visual tokens. Pictures have one size, so a batch passes through the tower as one tensor (`features`), several times
   faster than the checkpoint's own forward pass, which loops over pictures.
3. Tunes both answers (`tune`) on top of the frozen tower. The result stands in for a base model, which the paper finds
   to judge pairs better than single pictures. Zero-shot models confuse quality with appealing content, so *scores* are
   trained with that confusion (`confounded`): bright, saturated pictures are rated higher. *Comparisons* are trained on
   quality only.

Takes about half an hour on two idle cores with bfloat16 arithmetic, several times longer without.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.fft import dct
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_position_ids

from evoquality.contract import Task
from service.prompts import PROFILES, ProfileName, chat_messages
from tests.benchmarks.checkpoint.architecture import IMAGE_SIDE, build_model, build_processor, save_checkpoint
from tests.benchmarks.checkpoint.pictures import Pictures, make_pictures
from trainer.demo.truth import KINDS

GRID = 8
"""Patches per side of a 112-pixel picture."""
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
QUALITY_WEIGHT, CONTENT_WEIGHT = 0.6, 0.37
HELD_BACK = 1200
"""Number of pictures, of separate contents, for the tower's validation."""
TUNED_CONTENTS = range(6000, 7100)
"""Contents for tuning the answers: unseen by the tower, which may have memorised its own."""


def patches(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, 112, 112, 3) 8-bit -> (B, 64, 1176), as the checkpoint's image processor makes them."""
    images = (torch.from_numpy(pixels).float() / 255 - _MEAN) / _STD
    blocks = images.view(-1, GRID // 2, 2, 14, GRID // 2, 2, 14, 3)
    merged = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, GRID * GRID, 3, 1, 14 * 14)
    return merged.expand(-1, -1, -1, 2, -1).reshape(-1, GRID * GRID, 3 * 2 * 14 * 14)


def features(visual: Qwen2_5_VisionTransformerPretrainedModel, patches: Tensor) -> Tensor:
    """(B, 64, 1176) -> (B, 64, width): output of the tower before its merger. A 112-pixel picture is one window."""
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
    """Initialises the patch embedding with cosine transforms (DCT-II) of equal variance on a sample of pictures.

    In natural pictures coarse detail outweighs fine detail a hundredfold, but damage shows in the fine detail. From a
    random start the tower needs its first thousand steps to learn that.
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
    """Trains the tower in place. Returns the SRCC of its predictions on held-back pictures."""
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
    """Random mirroring and transposition, which keep the quality."""
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


def confounded(pictures: Pictures) -> NDArray[np.float32]:
    """(N,) target scores of the base model: partly quality, partly brightness and saturation."""
    brightness = pictures.pixels.mean((1, 2, 3), dtype=np.float32)
    saturation = np.ptp(pictures.pixels, axis=-1).mean((1, 2), dtype=np.float32)
    appeal = standardised(standardised(brightness) + standardised(saturation))
    return np.clip(3 + QUALITY_WEIGHT * (pictures.quality - 3) + CONTENT_WEIGHT * appeal, 1, 5)


def standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (values - values.mean()) / values.std()


@dataclass(slots=True)
class Template:
    """A task's prompt followed by an answer of fixed length, to be filled in for a batch."""

    prompt: Tensor
    """(P,) token ids, image placeholders expanded."""
    positions: Tensor
    """(3, 1, P + A) rotary positions."""
    images: Tensor
    """(P,) true at visual tokens."""

    @classmethod
    def of(
        cls,
        model: Qwen2_5_VLForConditionalGeneration,
        processor: Qwen2_5_VLProcessor,
        task: Task,
        answer: int = 0,
        profile: ProfileName = "plain",
    ) -> Template:
        """A profile's template for answers of `answer` tokens."""
        text = processor.apply_chat_template(
            chat_messages(task, PROFILES[profile]), add_generation_prompt=True, tokenize=False
        )
        blank = np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
        encoded = processor(text=[text], images=[blank] * (1 if task == "score" else 2), return_tensors="pt")
        prompt, types = encoded["input_ids"][0], encoded["mm_token_type_ids"]
        padded = torch.cat([prompt, torch.zeros(answer, dtype=torch.long)])[None]
        kinds = torch.cat([types, torch.zeros((1, answer), dtype=types.dtype)], 1)
        positions, _ = model.model.get_rope_index(padded, kinds, encoded["image_grid_thw"])
        return cls(prompt, positions, prompt == model.config.image_token_id)

    def embeddings(self, model: Qwen2_5_VLForConditionalGeneration, visual: Tensor) -> Tensor:
        """(B, P, width) of the prompt around (B, V, width) visual tokens."""
        prompt = model.get_input_embeddings()(self.prompt).expand(len(visual), -1, -1)
        return prompt.masked_scatter(self.images[:, None], visual.float())

    def loss(self, model: Qwen2_5_VLForConditionalGeneration, visual: Tensor, answers: Tensor) -> Tensor:
        """Mean cross entropy of (B, A) answer tokens after (B, V, width) visual tokens."""
        batch, length = answers.shape
        embedded = model.get_input_embeddings()(answers)
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([self.embeddings(model, visual), embedded], 1),
            position_ids=self.positions.expand(-1, batch, -1),
            use_cache=False,
        ).last_hidden_state
        logits = model.lm_head(hidden[:, -length - 1 : -1])
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), answers.flatten())


def tune(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    pictures: Pictures,
    scores: NDArray[np.float32],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    batch: int = 32,
    pairs: bool = True,
    seed: int,
    progress: Progress,
) -> None:
    """Tunes merger and language model in place; the tower's blocks and patch embedding stay frozen.

    `scores`: (N,) target score of each picture, 1 to 5. `pairs`: also train comparisons, on quality.
    """
    rng = np.random.default_rng(seed)
    visual = model.model.visual
    encoded = encode(visual, pictures)
    tokens = {text: processor.tokenizer(text + "<|im_end|>")["input_ids"] for text in ("0", "1")}
    templates = Template.of(model, processor, "score", 5), Template.of(model, processor, "compare", 2)
    parameters = [*visual.merger.parameters(), *model.model.language_model.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    bar = progress.add_task("both answers" if pairs else "scores", total=steps)
    for step in range(1, steps + 1):
        one = rng.integers(0, len(scores), batch)
        said = [processor.tokenizer(f"{score:.2f}<|im_end|>")["input_ids"] for score in scores[one]]
        with torch.autocast("cpu", torch.bfloat16):
            loss = templates[0].loss(model, merge(visual, encoded[one].float()), torch.tensor(said))
        shown = f"step {step}: score {loss.item():.3f}"
        if pairs:
            two = pairs_apart(pictures.quality, 2 * batch, rng)
            votes = [tokens["0" if q[0] > q[1] else "1"] for q in pictures.quality[two]]
            with torch.autocast("cpu", torch.bfloat16):
                seen = merge(visual, encoded[two.flatten()].float()).view(len(two), -1, 128)
                compare_loss = templates[1].loss(model, seen, torch.tensor(votes))
            loss, shown = loss + 2 * compare_loss, f"{shown}, compare {compare_loss.item():.3f}"
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress.advance(bar)
        if step % 50 == 0:
            progress.console.print(shown)


@torch.no_grad()
def encode(visual: nn.Module, pictures: Pictures) -> Tensor:
    """(N, 64, width) half-precision features of the frozen tower, computed once."""
    chunks = np.array_split(pictures.pixels, max(1, len(pictures.pixels) // 256))
    encoded = []
    for chunk in chunks:
        with torch.autocast("cpu", torch.bfloat16):
            encoded.append(features(visual, patches(chunk)))
    return torch.cat([part.half() for part in encoded])


def pairs_apart(quality: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 2) indices of pictures whose quality differs visibly."""
    drawn = rng.integers(0, len(quality), (4 * count, 2))
    return drawn[np.abs(np.diff(quality[drawn], axis=1)[:, 0]) > 0.1][:count]


def main(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("trainer/demo/checkpoint"),
    contents: Annotated[int, typer.Option(help="Undamaged pictures; each gives 12 damaged ones.")] = 4200,
    tower_steps: Annotated[int, typer.Option(help="Steps of 96 pictures for the vision tower.")] = 3300,
    answer_steps: Annotated[int, typer.Option(help="Steps of 32 scores and 64 pairs for both answers.")] = 350,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
) -> None:
    """Trains the embedded checkpoint."""
    print(f"making {contents * 12} pictures ...")
    pictures = make_pictures("train", range(contents), os.cpu_count() or 1)
    taught, held_back = _rows(pictures, 0, -HELD_BACK), _rows(pictures, -HELD_BACK, None)
    processor = build_processor()
    model = build_model(processor, seed)
    with Progress() as progress:
        srcc = pretrain(model.model.visual, taught, held_back, steps=tower_steps, seed=seed, progress=progress)
        progress.console.print(f"vision tower: SRCC {srcc:.3f} on {HELD_BACK} pictures of unseen contents")
        fresh = make_pictures("train", TUNED_CONTENTS, os.cpu_count() or 1)
        tune(model, processor, fresh, confounded(fresh), steps=answer_steps, seed=seed, progress=progress)
    save_checkpoint(model, processor, out)
    print(f"wrote {out}")


def _rows(pictures: Pictures, start: int, stop: int | None) -> Pictures:
    return Pictures(*(getattr(pictures, field.name)[start:stop] for field in fields(pictures)))


if __name__ == "__main__":
    typer.run(main)
