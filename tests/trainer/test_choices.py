"""What a run's settings leave open is chosen by the version that it starts from, and stays as the run began."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.versions.store import VersionStore
from trainer.files import write_json
from trainer.settings.evolve import EvolveSettings
from trainer.training.choices import learning_rate, with_choices

EMBEDDED = Path("trainer/demo/checkpoint")


@pytest.fixture
def settings(tmp_path: Path) -> EvolveSettings:
    store = VersionStore(tmp_path / "store")
    store.activate(store.add(EMBEDDED, parent=None, profile="plain", origin="test").id)
    return EvolveSettings(pool=tmp_path, run=tmp_path / "run", store=tmp_path / "store")


def test_the_embedded_model_gets_the_rates_that_it_was_trained_with(settings: EvolveSettings) -> None:
    assert with_choices(settings).learning_rate == 1e-3
    assert with_choices(settings.model_copy(update={"policy": "full"})).learning_rate == 1e-4


def test_a_model_of_billions_of_parameters_gets_the_papers_rate_and_an_adapter_more(settings: EvolveSettings) -> None:
    assert learning_rate("full", 8_292_166_656) == 3e-7
    assert learning_rate("lora", 3_754_622_976) == 1e-5


def test_the_size_is_read_from_the_weights_of_the_version_that_the_run_starts_from(
    settings: EvolveSettings, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.mkdir()
    (source / "config.json").write_text((EMBEDDED / "config.json").read_text())
    save_file({"a.weight": np.zeros((10_000, 10_000), np.float16)}, source / "model.safetensors")
    large = VersionStore(settings.store).add(source, parent=None, profile="plain", origin="test").id
    assert with_choices(settings.model_copy(update={"base": large})).learning_rate == 1e-5


def test_what_was_given_or_chosen_before_stays(settings: EvolveSettings) -> None:
    assert with_choices(settings.model_copy(update={"learning_rate": 0.5})).learning_rate == 0.5
    settings.run.mkdir()
    write_json(settings.run / "settings.json", {"learning_rate": 0.25, "dtype": "float32"})
    chosen = with_choices(settings)
    assert (chosen.learning_rate, chosen.dtype) == (0.25, "float32")


def test_without_a_version_the_settings_are_those_of_a_small_model(settings: EvolveSettings, tmp_path: Path) -> None:
    chosen = with_choices(settings.model_copy(update={"store": tmp_path / "nowhere"}))
    assert (chosen.learning_rate, chosen.dtype) == (1e-3, "float32")
