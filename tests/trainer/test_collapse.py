"""A round that collapses is stopped; one that learns, however noisily, is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import Collapsed
from trainer.settings.evolve import EvolveSettings
from trainer.training.collapse import check

HEALTHY = {"entropy": 0.6, "score_spread": 0.4, "constant": 0.0, "unreadable": 0.02, "kl": 0.05, "reward": 0.8}


@pytest.fixture
def settings(tmp_path: Path) -> EvolveSettings:
    return EvolveSettings(pool=tmp_path, run=tmp_path / "run", collapse_window=5)


def series(*changes: dict[str, float]) -> list[dict[str, float]]:
    return [{"step": step, **HEALTHY, **change} for step, change in enumerate(changes)]


def test_a_healthy_series_goes_on(settings: EvolveSettings) -> None:
    check(series(*[{}] * 20), settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entropy": 0.001}, "entropy is 0.001"),
        ({"score_spread": 0.001}, "spread by 0.001"),
        ({"constant": 1.0}, "100% of the images got the same answer"),
        ({"unreadable": 0.8}, "80% of the answers are unreadable"),
        ({"kl": 7.0}, "7.00 nats a token"),
    ],
)
def test_a_collapse_is_told_with_its_figure_and_what_to_do(
    settings: EvolveSettings, change: dict[str, float], said: str
) -> None:
    with pytest.raises(Collapsed, match="lower --learning-rate") as told:
        check(series(*[{}] * 5, *[change] * 5), settings)
    assert said in str(told.value)
    assert "to step 9" in str(told.value)


def test_one_bad_step_among_good_ones_is_no_collapse(settings: EvolveSettings) -> None:
    check(series({}, {}, {"unreadable": 1.0, "entropy": 0}, {}, {}), settings)


def test_a_bad_beginning_shorter_than_the_window_is_awaited(settings: EvolveSettings) -> None:
    check(series(*[{"unreadable": 1.0}] * 4), settings)


def test_a_figure_that_is_no_number_ends_the_round_at_once(settings: EvolveSettings) -> None:
    with pytest.raises(Collapsed, match="step 1: loss is not finite"):
        check(series({}, {"loss": float("nan")}), settings)
