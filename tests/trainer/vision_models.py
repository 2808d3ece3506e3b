"""Random Qwen2.5-VL checkpoints of several shapes, and their log-probabilities the plain way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from service.prompts import PROFILES, chat_messages
from tests.benchmarks.checkpoint.architecture import build_config, build_model, build_processor, save_checkpoint
from trainer.training.policy import LoraPolicy

PLAIN = PROFILES["plain"]


def embedded_shape(folder: Path) -> Path:
    """The embedded checkpoint's shape."""
    processor = build_processor()
    save_checkpoint(build_model(processor, seed=0), processor, folder)
    return folder


def another_shape(folder: Path) -> Path:
    """Other layers, heads, rotary sections and windows, a head of its own, and pictures of up to 20 visual tokens."""
    processor = build_processor()
    processor.image_processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 140)
    config = build_config(processor.tokenizer)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 96, 160, 3
    text.layer_types = text.layer_types[:3]
    text.num_attention_heads, text.num_key_value_heads = 6, 3
    text.rope_parameters = {**text.rope_parameters, "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision.depth, vision.hidden_size, vision.num_heads, vision.intermediate_size = 3, 48, 3, 80
    vision.out_hidden_size, vision.window_size, vision.fullatt_block_indexes = 96, 56, [2]
    text.tie_word_embeddings = config.tie_word_embeddings = False
    torch.manual_seed(3)
    save_checkpoint(Qwen2_5_VLForConditionalGeneration(config), processor, folder)
    return folder


SHAPES = {"embedded": embedded_shape, "another": another_shape}


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain_logprobs(model: torch.nn.Module, checkpoint: Path, shown: Image.Image, answer: list[int]) -> Tensor:
    """(T,) One row, one answer, the model's own forward: no shared prefix, no cache."""
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    text = processor.apply_chat_template(chat_messages("score", PLAIN), add_generation_prompt=True, tokenize=False)
    encoded = processor(text=[text], images=[shown], return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    types = torch.cat([encoded["mm_token_type_ids"], torch.zeros((1, len(answer)), dtype=torch.long)], 1)
    logits = model(
        input_ids=torch.cat([encoded["input_ids"], torch.tensor([answer])], 1),
        mm_token_type_ids=types,
        pixel_values=encoded["pixel_values"],
        image_grid_thw=encoded["image_grid_thw"],
    ).logits
    return logits[0, length - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


def adapted(checkpoint: Path) -> LoraPolicy:
    """A policy with an adapter that does something: the fresh one is zero."""
    made = LoraPolicy(checkpoint, PLAIN, rank=8, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in made.trainable():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return made
