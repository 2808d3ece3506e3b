"""The memory that is computed of a checkpoint agrees with real weights, and with passes that were measured."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen2_5_VLForConditionalGeneration

from service.engine.memory import Shape
from service.prompts import PROFILES
from tests.benchmarks import sizes
from tests.benchmarks.scale.recipes import measured_pass
from tests.benchmarks.sizes import PUBLISHED
from trainer.pricing.memory import pass_bytes, training
from trainer.training.policy import LANGUAGE_LINEAR, FullPolicy

CHECKPOINT = Path("trainer/demo/checkpoint")
EMBEDDED = Shape.of(json.loads((CHECKPOINT / "config.json").read_text()))


def weightless(name: str) -> PreTrainedModel:
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration._from_config(PUBLISHED[name], attn_implementation="sdpa")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_in_the_embedded_checkpoints_file() -> None:
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert EMBEDDED.parameters == stored


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_have_the_parameters_that_torch_counts(name: str) -> None:
    model, shape = weightless(name), sizes.shape(name)
    assert shape.parameters == parameters(model)
    assert shape.layer == parameters(model.model.language_model.layers[0])
    assert shape.merger == parameters(model.model.visual.merger)
    linear = (module for name, module in model.named_modules() if re.fullmatch(LANGUAGE_LINEAR, name))
    assert shape.adapter(32) == sum(32 * (each.in_features + each.out_features) for each in linear)


def test_the_published_models_have_the_parameters_that_their_hub_pages_show() -> None:
    counted = {name: f"{sizes.shape(name).parameters / 1e9:.3g}" for name in PUBLISHED}
    assert counted == {"3B": "3.75", "7B": "8.29", "32B": "33.5"}


def test_the_hubs_config_has_the_same_shape_as_that_of_a_saved_model() -> None:
    nested = PUBLISHED["7B"].to_dict()
    flat = {**nested["text_config"], "vision_config": {**nested["vision_config"], "in_chans": 3}}
    del flat["vision_config"]["in_channels"]
    assert Shape.of({**flat, "tie_word_embeddings": False}) == sizes.shape("7B")


def test_an_adapter_has_the_parameters_of_pefts() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, trust_remote_code=False)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=LANGUAGE_LINEAR))
    trained, _ = adapted.get_nb_trainable_parameters()
    assert EMBEDDED.adapter(8) == trained


def test_full_fine_tuning_trains_as_many_as_the_trainer_does() -> None:
    policy = FullPolicy(CHECKPOINT, PROFILES["plain"])
    assert training(EMBEDDED, full=True, rank=8).checkpoint == 12 * sum(each.numel() for each in policy.trainable())


def test_keys_and_values_take_what_the_model_caches() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.bfloat16, trust_remote_code=False)
    cache = model(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 5 * EMBEDDED.token_bytes(2)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "computed again"])
def test_a_pass_takes_the_memory_that_is_computed(recompute: bool) -> None:
    """Of a model with two layers of other dimensions than those that the formula was made with."""
    shape, tokens, peak = measured_pass(384, 1280, heads=6, kv_heads=2, layers=2, side=392, recompute=recompute)
    computed = pass_bytes(shape, tokens, recompute=recompute, device="cpu")
    assert 0.9 * peak < computed < 1.4 * peak


def test_an_engine_that_has_no_room_for_one_answer_does_not_start() -> None:
    small, large = (sizes.GPUS[gpu] * sizes.GIB for gpu in ("24 GB", "80 GB"))
    assert sizes.serving("32B").sequences(small, sizes.ENGINE) == 0
    assert sizes.serving("32B", gpus=2).sequences(large, sizes.ENGINE) > 0


def test_more_processes_need_less_memory_each() -> None:
    need = sizes.training("7B", "full")
    assert need.on_each(2, 1) > need.on_each(8, 1) > need.states / 8
