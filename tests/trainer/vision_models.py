"""Random Qwen2.5-VL checkpoints of several shapes, others of like architectures, and the plain log-probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from service.prompts import PROFILES, chat_messages
from tests.benchmarks.checkpoint.architecture import (
    CHAT_TEMPLATE,
    build_config,
    build_model,
    build_processor,
    build_tokenizer,
    save_checkpoint,
)
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


def qwen3_vl(folder: Path) -> Path:
    """Its vision tower's features enter several layers of the language model."""
    pixels = {"min_pixels": 64 * 64, "max_pixels": 128 * 128}
    tokenizer = build_tokenizer()
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, **pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    like = build_config(tokenizer)
    vision = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 128,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.06,
    }  # fmt: skip
    config = Qwen3VLConfig(text_config={**_text(like), "head_dim": 32}, vision_config=vision, **_ids(like))
    torch.manual_seed(0)
    save_checkpoint(Qwen3VLForConditionalGeneration(config), processor, folder)
    return folder


def qwen2_vl(folder: Path) -> Path:
    """Of the same parts as its successor."""
    processor = build_processor()
    like = build_config(processor.tokenizer)
    vision = {
        "depth": 2,
        "embed_dim": 64,
        "hidden_size": 128,
        "num_heads": 4,
        "mlp_ratio": 2,
        "initializer_range": 0.06,
    }
    config = Qwen2VLConfig(text_config=_text(like), vision_config=vision, **_ids(like))
    torch.manual_seed(0)
    save_checkpoint(Qwen2VLForConditionalGeneration(config), processor, folder)
    return folder


def _text(like: Qwen2_5_VLConfig) -> dict[str, object]:
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rope_parameters", "initializer_range",
    )  # fmt: skip
    return {name: getattr(like.text_config, name) for name in names}


def _ids(like: Qwen2_5_VLConfig) -> dict[str, int]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: getattr(like, name) for name in names}


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
