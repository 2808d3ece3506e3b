"""The published dimensions of Qwen2.5-VL, and what can be counted of them without weights, on torch's meta device.

Source: config.json of Qwen/Qwen2.5-VL-{3B,7B,32B}-Instruct (Qwen2.5-VL Technical Report, arXiv 2502.13923, table 1).
"""

from __future__ import annotations

import re

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from trainer.training.policy import LANGUAGE_LINEAR

SPECIAL_IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}


def _published(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int, vision: int, tied: bool
) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    tower = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": vision, "num_heads": 16, "out_hidden_size": hidden,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    return Qwen2_5_VLConfig(text_config=text, vision_config=tower, **SPECIAL_IDS, tie_word_embeddings=tied)


PUBLISHED = {
    "3B": _published(2048, 11008, 36, 16, 2, 151936, 3420, tied=True),
    "7B": _published(3584, 18944, 28, 28, 4, 152064, 3420, tied=False),
    "32B": _published(5120, 27648, 64, 40, 8, 152064, 3456, tied=False),
}


def weightless(config: Qwen2_5_VLConfig) -> PreTrainedModel:
    """The model in bfloat16 on the meta device: shapes alone."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)


def parameters(module: nn.Module) -> int:
    """How many; tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def adapter_parameters(model: PreTrainedModel, rank: int) -> int:
    """Of a LoRA adapter as the trainer makes it."""
    adapted = (module for name, module in model.named_modules() if re.fullmatch(LANGUAGE_LINEAR, name))
    return sum(rank * (linear.in_features + linear.out_features) for linear in adapted)


def trained_parameters(model: PreTrainedModel) -> int:
    """Of full fine-tuning without `--train-vision`: all but the vision tower, whose merger is trained."""
    return parameters(model) - parameters(model.model.visual) + parameters(model.model.visual.merger)


def token_bytes(config: Qwen2_5_VLConfig) -> int:
    """Keys and values of one token, in bfloat16."""
    text = config.text_config
    return 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads) * 2
