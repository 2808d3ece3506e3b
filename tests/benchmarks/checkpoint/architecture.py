"""Architecture of the embedded checkpoint: Qwen2.5-VL, small enough for two CPU cores to serve and train.

    python -m tests.benchmarks.checkpoint.architecture DIR    writes it with random weights

Model class and image processor are the real ones; tokenizer (byte-level BPE, each digit a token) and chat template come
with it. `AutoProcessor` and vLLM load it like any other checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from service.prompts import COMPARE_QUESTION, SCORE_QUESTION

IMAGE_SIDE = 112
"""Pixels per side: 8 x 8 patches of 14 pixels, merged 2 x 2 into 16 visual tokens."""

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens, trained on the two questions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[^\s\d]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SCORE_QUESTION, COMPARE_QUESTION, "user\nassistant\n"] * 2, trainer)
    return _described(tokenizer)


def with_words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer with a token for each word of `texts`. Tokens, and what was a single one, stay as they are."""
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = told["model"]["vocab"], [(one, other) for one, other in told["model"]["merges"]]
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for word in sorted({word for text in texts for word, _ in split(text)}):
        while len(pieces := models.BPE(vocabulary, merges).tokenize(word)) > 1:
            merges.append((pieces[0].value, pieces[1].value))
            vocabulary.setdefault("".join(merges[-1]), len(vocabulary))
    told["model"] |= {"vocab": vocabulary, "merges": merges}
    return _described(Tokenizer.from_str(json.dumps(told)))


def _described(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """Tokenizer, image processor (at most 112 x 112 pixels) and chat template."""
    pixels = IMAGE_SIDE * IMAGE_SIDE
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=pixels),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """About 2 million parameters: 4 vision and 4 language layers, 128 wide."""
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "initializer_range": 0.06,
        "tie_word_embeddings": True,
        "bos_token_id": token("<|im_start|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_heads": 4,
        "out_hidden_size": 128,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "initializer_range": 0.06,
        "fullatt_block_indexes": [1, 3],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        dtype="float32",
    )


def build_model(processor: Qwen2_5_VLProcessor, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The small model with random weights."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(processor.tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
    )
    return model


def save_checkpoint(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, directory: Path) -> None:
    """Writes a checkpoint that `AutoProcessor` and vLLM can load."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def main() -> None:
    directory = Path(sys.argv[1])
    processor = build_processor()
    model = build_model(processor, seed=0)
    save_checkpoint(model, processor, directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"directory": str(directory), "parameters": parameters, "vocabulary": len(processor.tokenizer)}))


if __name__ == "__main__":
    main()
