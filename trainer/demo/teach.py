"""Second step of the recipe: supervised tuning of both answers on top of the frozen tower.

The result has to be an honest stand-in for a base model, which the paper finds to be a better judge of pairs than
of single pictures. Zero-shot models confuse quality with what they like in a content, so the *scores* are taught
with that confusion (`confounded`): bright, saturated pictures are rated higher. *Pairs* are taught by quality alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from service.contract import Task
from service.prompts import PROFILES, chat_messages
from trainer.demo import tower
from trainer.demo.architecture import IMAGE_SIDE
from trainer.demo.pictures import Pictures

QUALITY_WEIGHT, CONTENT_WEIGHT = 0.6, 0.37


def confounded(pictures: Pictures) -> NDArray[np.float32]:
    """(N,) the scores the base model is taught: part quality, part brightness and saturation."""
    brightness = pictures.pixels.mean((1, 2, 3), dtype=np.float32)
    saturation = np.ptp(pictures.pixels, axis=-1).mean((1, 2), dtype=np.float32)
    appeal = _standardised(_standardised(brightness) + _standardised(saturation))
    return np.clip(3 + QUALITY_WEIGHT * (pictures.quality - 3) + CONTENT_WEIGHT * appeal, 1, 5)


def _standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (values - values.mean()) / values.std()


@dataclass(slots=True)
class Template:
    """A task's prompt followed by an answer of fixed length, ready to be filled in for a batch."""

    prompt: Tensor
    """(P,) token ids, image placeholders expanded."""
    positions: Tensor
    """(3, 1, P + A) rotary positions."""
    images: Tensor
    """(P,) true where a visual token goes."""

    @classmethod
    def of(
        cls,
        model: Qwen2_5_VLForConditionalGeneration,
        processor: Qwen2_5_VLProcessor,
        task: Task,
        answer: int,
    ) -> Template:
        """The plain profile's template for answers of `answer` tokens."""
        text = processor.apply_chat_template(
            chat_messages(task, PROFILES["plain"]), add_generation_prompt=True, tokenize=False
        )
        blank = np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
        encoded = processor(text=[text], images=[blank] * (1 if task == "score" else 2), return_tensors="pt")
        prompt, types = encoded["input_ids"][0], encoded["mm_token_type_ids"]
        padded = torch.cat([prompt, torch.zeros(answer, dtype=torch.long)])[None]
        kinds = torch.cat([types, torch.zeros((1, answer), dtype=types.dtype)], 1)
        positions, _ = model.model.get_rope_index(padded, kinds, encoded["image_grid_thw"])
        return cls(prompt, positions, prompt == model.config.image_token_id)

    def loss(self, model: Qwen2_5_VLForConditionalGeneration, visual: Tensor, answers: Tensor) -> Tensor:
        """Mean cross entropy of (B, A) answer tokens after (B, V, width) visual tokens."""
        batch, length = answers.shape
        embed = model.get_input_embeddings()
        prompt = embed(self.prompt).expand(batch, -1, -1).masked_scatter(self.images[:, None], visual.float())
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([prompt, embed(answers)], 1),
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
    """Tunes merger and language model in place; the tower's blocks and patch embedding stay as they are.

    `scores`: (N,) what is answered about each picture, 1 to 5. `pairs`: whether comparisons are taught too, by quality.
    """
    rng = np.random.default_rng(seed)
    visual = model.model.visual
    encoded = _encode(visual, pictures)
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
            loss = templates[0].loss(model, tower.merge(visual, encoded[one].float()), torch.tensor(said))
        shown = f"step {step}: score {loss.item():.3f}"
        if pairs:
            two = _pairs(pictures.quality, 2 * batch, rng)
            votes = [tokens["0" if q[0] > q[1] else "1"] for q in pictures.quality[two]]
            with torch.autocast("cpu", torch.bfloat16):
                seen = tower.merge(visual, encoded[two.flatten()].float()).view(len(two), -1, 128)
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
def _encode(visual: nn.Module, pictures: Pictures) -> Tensor:
    """(N, 64, width) half-precision features of the frozen tower, computed once."""
    chunks = np.array_split(pictures.pixels, max(1, len(pictures.pixels) // 256))
    encoded = []
    for chunk in chunks:
        with torch.autocast("cpu", torch.bfloat16):
            encoded.append(tower.features(visual, tower.patches(chunk)))
    return torch.cat([part.half() for part in encoded])


def _pairs(quality: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 2) rows of pictures whose quality differs visibly."""
    drawn = rng.integers(0, len(quality), (4 * count, 2))
    return drawn[np.abs(np.diff(quality[drawn], axis=1)[:, 0]) > 0.1][:count]
