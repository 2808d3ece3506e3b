"""The sizes in k8s/README.md are those that are computed, and the arithmetic is held against real weights."""

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
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from service.prompts import PROFILES
from tests.benchmarks.readme_tables import RESULTS
from tests.benchmarks.sizes import memory, rounds
from tests.benchmarks.sizes.__main__ import README, TABLES
from tests.benchmarks.sizes.models import (
    PUBLISHED,
    adapter_parameters,
    parameters,
    token_bytes,
    trained_parameters,
    weightless,
)
from trainer.evaluation.readme_tables import fill
from trainer.files import read_json
from trainer.training.policy import LANGUAGE_LINEAR, FullPolicy

CHECKPOINT = Path("trainer/demo/checkpoint")


@pytest.fixture(scope="module")
def embedded() -> PreTrainedModel:
    return weightless(AutoConfig.from_pretrained(CHECKPOINT))


def test_the_tables_of_the_guide_are_those_that_are_computed() -> None:
    written = README.read_text(encoding="utf-8")
    assert fill(written, TABLES) == written, "run `make tables`"


def test_the_shares_in_its_text_are_those_that_are_computed_and_measured() -> None:
    written = " ".join(README.read_text(encoding="utf-8").split())
    assert f"are {100 * rounds.achieved():.0f} % of the matrix peak" in written
    votes = read_json(RESULTS / "train.json")["votes"]
    stopped = sorted(votes[f"temperature {degree}"]["stopped"]["per_pair_over_full"] for degree in ("0.5", "1.0"))
    assert f"{100 * stopped[0]:.0f} to {100 * stopped[1]:.0f} % of the {rounds.paper().votes:,} were asked" in written


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
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=LANGUAGE_LINEAR))
    trained, _ = adapted.get_nb_trainable_parameters()
    assert adapter_parameters(embedded, 8) == trained


def test_full_fine_tuning_trains_as_many_as_the_trainer_does(embedded: PreTrainedModel) -> None:
    policy = FullPolicy(CHECKPOINT, PROFILES["plain"])
    assert trained_parameters(embedded) == sum(each.numel() for each in policy.trainable())


def test_keys_and_values_take_what_the_model_caches() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.bfloat16)
    cache = model(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 5 * token_bytes(model.config)


def test_an_engine_that_has_no_room_for_one_answer_does_not_start() -> None:
    assert memory.serving("32B").sequences(memory.GPUS["24 GB"], 1) == 0
    assert memory.serving("32B").sequences(memory.GPUS["80 GB"], 2) > 0


def test_more_processes_need_less_memory_each() -> None:
    need = memory.training("7B", "full")
    assert need.on_each(2) > need.on_each(8) > need.activations


def test_the_papers_hours_are_a_possible_share_of_its_gpus_peak() -> None:
    assert 0.1 < rounds.achieved() < 0.6
    assert rounds.hours(rounds.paper()) == pytest.approx(rounds.PAPER_HOURS)


def test_a_layer_keeps_at_most_what_is_counted_for_its_backward_pass() -> None:
    """At half of 3B's width, on this processor, whose attention keeps no probabilities either."""
    text = PUBLISHED["3B"].text_config.to_dict() | {"hidden_size": 1024, "num_attention_heads": 8, "vocab_size": 512}
    text |= {"num_hidden_layers": 1, "layer_types": None, "bos_token_id": None, "eos_token_id": None}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=PUBLISHED["3B"].vision_config.to_dict() | {"depth": 1})
    layer = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16).model.language_model.layers[0]
    embedded = torch.randn(1, 96, 1024, dtype=torch.bfloat16, requires_grad=True)
    turned = (torch.ones(1, 96, 128, dtype=torch.bfloat16), torch.zeros(1, 96, 128, dtype=torch.bfloat16))
    kept: dict[int, int] = {}
    weights = {each.data_ptr() for each in layer.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = layer(embedded, position_embeddings=turned)
    config.text_config.num_hidden_layers = 2
    config.text_config.layer_types = ["full_attention"] * 2
    assert 0.75 < sum(kept.values()) / memory.layer_activations(config, 96) <= 1, output
