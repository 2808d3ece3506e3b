"""Memory and disk that Qwen2.5-VL 3B, 7B and 32B need, by the product's own formulas and the published dimensions.

Source of the dimensions: config.json of Qwen/Qwen2.5-VL-{3B,7B,32B}-Instruct (Qwen2.5-VL Technical Report, arXiv
2502.13923, table 1). Nothing here was measured on a GPU; memory that CUDA and the allocator keep is left out.
`results/sizes.json` holds the operations of a round of 7B, which were counted with more effort.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from transformers import Qwen2_5_VLConfig

from service.configuration.settings import Settings
from service.engine import memory
from service.engine.memory import Serving, Shape
from trainer.pricing.memory import Training
from trainer.pricing.memory import training as training_of

Kind = Literal["lora", "full"]

COUNTED = Path(__file__).with_name("results") / "sizes.json"
ENGINE = Settings(dtype="bfloat16", max_model_len=4096, max_num_seqs=256, enforce_eager=False)
"""The defaults of an engine on a GPU."""
RANK = 32
PASS_TOKENS = 1500
"""Of a picture of one megapixel, its question and 16 short answers: the least that a pass should hold."""
GIB = 2**30
GPUS = {"24 GB": 22, "48 GB": 44, "80 GB": 79, "141 GB": 139}
"""GiB that torch reports of an L4, L40S, H100 (A100) and H200, rounded down."""
TENSOR_PARALLEL = (1, 2, 4)
"""8 divides neither the 28 heads of 7B nor the 3,420 columns of its vision tower."""
PROCESSES = (1, 2, 4, 8, 16)

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
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    tower = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": vision,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=tower, **SPECIAL_IDS, tie_word_embeddings=tied)


PUBLISHED = {
    "3B": _published(2048, 11008, 36, 16, 2, 151936, 3420, tied=True),
    "7B": _published(3584, 18944, 28, 28, 4, 152064, 3420, tied=False),
    "32B": _published(5120, 27648, 64, 40, 8, 152064, 3456, tied=False),
}


@cache
def shape(name: str) -> Shape:
    """The dimensions of a published model."""
    return Shape.of(PUBLISHED[name].to_dict())


def serving(name: str, gpus: int = 1) -> Serving:
    """An engine for a published model on so many GPUs."""
    return memory.serving(shape(name), ENGINE.model_copy(update={"tensor_parallel_size": gpus}))


def training(name: str, kind: Kind) -> Training:
    """A trainer for a published model."""
    return training_of(shape(name), full=kind == "full", rank=RANK)
