"""Every command for 3B and 7B that is there to be copied fits the GPUs that it names, and the context."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.configuration.settings import Settings
from service.errors import UserError
from tests.benchmarks.scale.recipes import READMES, Recipe, documented, recipes
from tests.deployment.conftest import manifests
from trainer.settings.evolve import EvolveSettings

__all__ = ["manifests"]


@pytest.fixture(scope="module")
def every(manifests: Path) -> list[Recipe]:
    return recipes(manifests)


def test_commands_of_every_readme_of_the_manifests_and_of_compose_are_among_them(every: list[Recipe]) -> None:
    places = {recipe.name.split(":")[0] for recipe in every}
    assert {*map(str, READMES), "docker/compose.gpu.yaml", "k8s base", "k8s gpu-7b", "k8s replicas"} <= places
    assert {recipe.model for recipe in every} == {"3B", "7B"}


def test_the_computed_memory_is_below_that_of_the_gpu(every: list[Recipe]) -> None:
    assert [
        f"{one.name}: {one.computed_gib:.1f} of {one.gpu_gib}" for one in every if one.computed_gib >= one.gpu_gib
    ] == []


def test_engines_on_gpus_have_16_bits_graphs_and_many_answers_and_trainers_choose_for_themselves(
    every: list[Recipe],
) -> None:
    for settings in (recipe.settings for recipe in every):
        if isinstance(settings, Settings):
            assert (settings.dtype, settings.enforce_eager, settings.max_num_seqs) == ("bfloat16", False, 256)
        else:
            assert settings.device.startswith("cuda")
            chosen = (settings.dtype, settings.gradient_checkpointing, settings.learning_rate, settings.tokens_per_pass)
            assert chosen == ("auto", "auto", None, None)


def test_a_megapixel_is_seen_in_every_profile(every: list[Recipe]) -> None:
    least = min(one.check_context() for one in every if isinstance(one.settings, Settings))
    assert least >= EvolveSettings.model_fields["pixels"].default


def test_a_setting_that_does_not_fit_its_gpu_or_its_context_is_noticed() -> None:
    gpu = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 256, "enforce_eager": False}
    wide = Recipe("float32", "7B", 44, 1, Settings(**{**gpu, "tensor_parallel_size": 1}))
    assert wide.computed_gib > wide.gpu_gib
    with pytest.raises(UserError, match="max_model_len"):
        Recipe("pixels", "3B", 22, 1, Settings(**gpu, max_pixels=12_845_056)).check_context()


def test_a_command_of_the_embedded_model_is_none_of_them() -> None:
    text = "```\nevoquality-trainer evolve --pool photos/ --run runs/first\nevoquality serve --port 1  # 7B on\n```\n"
    assert list(documented(text)) == [("evoquality serve --port 1", " 7B on")]
