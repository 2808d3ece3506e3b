"""The arithmetic behind the sizes in k8s/README.md agrees with real weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from service.prompts import PROFILES
from tests.benchmarks import sizes
from tests.benchmarks.sizes import (
    PUBLISHED,
    adapter_parameters,
    parameters,
    token_bytes,
    trained_parameters,
    weightless,
)
from trainer.training.policy import LANGUAGE_LINEAR, FullPolicy

CHECKPOINT = Path("trainer/demo/checkpoint")


@pytest.fixture(scope="module")
def embedded() -> PreTrainedModel:
    return weightless(AutoConfig.from_pretrained(CHECKPOINT, trust_remote_code=False))


def test_parameters_are_those_in_the_embedded_checkpoints_file(embedded: PreTrainedModel) -> None:
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert parameters(embedded) == stored


def test_the_published_models_have_the_parameters_that_their_hub_pages_show() -> None:
    counted = {name: parameters(weightless(config)) for name, config in PUBLISHED.items()}
    assert {name: f"{count / 1e9:.3g}" for name, count in counted.items()} == {
        "3B": "3.75",
        "7B": "8.29",
        "32B": "33.5",
    }


def test_an_adapter_has_the_parameters_of_pefts(embedded: PreTrainedModel) -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, trust_remote_code=False)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=LANGUAGE_LINEAR))
    trained, _ = adapted.get_nb_trainable_parameters()
    assert adapter_parameters(embedded, 8) == trained


def test_full_fine_tuning_trains_as_many_as_the_trainer_does(embedded: PreTrainedModel) -> None:
    policy = FullPolicy(CHECKPOINT, PROFILES["plain"])
    assert trained_parameters(embedded) == sum(each.numel() for each in policy.trainable())


def test_keys_and_values_take_what_the_model_caches() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.bfloat16, trust_remote_code=False)
    cache = model(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 5 * token_bytes(model.config)


def test_an_engine_that_has_no_room_for_one_answer_does_not_start() -> None:
    assert sizes.serving("32B").sequences(sizes.GPUS["24 GB"], 1) == 0
    assert sizes.serving("32B").sequences(sizes.GPUS["80 GB"], 2) > 0


def test_more_processes_need_less_memory_each() -> None:
    need = sizes.training("7B", "full")
    assert need.on_each(2) > need.on_each(8) > need.activations
