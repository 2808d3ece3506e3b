"""The two ways to the log-probabilities of K answers about one picture, from pixels on."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from service.prompts import PROFILES
from trainer.training.logprobs import AnswerLogprobs
from trainer.training.network import encode_scores

PROMPT, VISUAL_TOKENS, ANSWER = 310, 256, 6
_MERGE = 2


def random_prompt(config: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> BatchFeature:
    """A picture of 448 px at the usual 14 px a patch and text of random tokens: 310 tokens, 256 of them visual."""
    side = int(VISUAL_TOKENS**0.5) * _MERGE
    text = torch.randint(7, config.text_config.vocab_size, (PROMPT - VISUAL_TOKENS - 2,))
    visual = torch.full((VISUAL_TOKENS,), config.image_token_id)
    marks = torch.tensor([[config.vision_start_token_id], [config.vision_end_token_id]])
    text[torch.isin(text, torch.tensor([config.image_token_id, config.video_token_id, *marks]))] = 0
    ids = torch.cat([marks[0], visual, marks[1], text])[None]
    encoded = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(side**2, 3 * 2 * config.vision_config.patch_size**2, dtype=dtype),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }
    return BatchFeature(encoded).to(device)


def random_answers(config: Any, samples: int, device: torch.device | str = "cpu") -> Tensor:
    """(K, 6) token ids."""
    return torch.randint(7, config.text_config.vocab_size // 2, (samples, ANSWER), device=device)


def shared(
    model: PreTrainedModel, logprobs: AnswerLogprobs, prompt: BatchFeature, answers: Tensor, *, vision_gradient: bool
) -> Tensor:
    """(K, T) as this trainer computes them: picture and prompt once."""
    picture, profile = Image.new("RGB", (1, 1)), PROFILES["plain"]
    [encoded] = encode_scores(model.model, _Encoded(prompt), profile, [picture], gradient=vision_gradient)
    return logprobs([encoded], [answers.tolist()]).chosen[0]


def repeated(model: PreTrainedModel, prompt: BatchFeature, answers: Tensor) -> Tensor:
    """(K, T) as the public GRPO trainers compute them: a row an answer, each with the prompt and the picture."""
    rows = len(answers)
    ids = torch.cat([prompt["input_ids"].repeat(rows, 1), answers], 1)
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=torch.cat([prompt["mm_token_type_ids"].repeat(rows, 1), torch.zeros_like(answers)], 1),
        pixel_values=prompt["pixel_values"].repeat(rows, 1),
        image_grid_thw=prompt["image_grid_thw"].repeat(rows, 1),
        use_cache=False,
        logits_to_keep=answers.shape[1] + 1,
    )
    return output.logits[:, :-1].float().log_softmax(-1).gather(-1, answers[..., None])[..., 0]


class _Encoded:
    """In place of the processor: a prompt of just this length, without the time that decoding a picture takes."""

    def __init__(self, prompt: BatchFeature) -> None:
        self._prompt = prompt

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        return ""

    def __call__(self, **_: Any) -> BatchFeature:
        return self._prompt
