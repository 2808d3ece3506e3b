"""The gate: its criteria and its labelled probe."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.prompts import PROFILES
from tests.benchmarks import gate
from tests.trainer.brightness import LEVELS, brightness
from tests.trainer.replicas import Replicas
from trainer.cli import app
from trainer.promotion import criteria
from trainer.promotion.agreement import change
from trainer.promotion.behaviour import Behaviour, behaviour
from trainer.promotion.probe import Probe
from trainer.settings.evolve import EvolveSettings, PoolSettings
from trainer.training.rollouts import Served

DECIDED = {(f"a{number}", f"b{number}"): 1.0 for number in range(100)}
"""The votes prefer a picture a to a picture b in all of a hundred pairs."""


def scores(agreement: float, shift: float = 0.0) -> dict[str, float]:
    """Scores that order a share of the pairs as voted, the last ones, with little distance."""
    found: dict[str, float] = {}
    for number, (one, other) in enumerate(DECIDED):
        low, high = (other, one) if number >= round(100 * (1 - agreement)) else (one, other)
        found |= {low: 2.9 + shift, high: 3.1 + shift}
    return found


BEFORE = Behaviour(unreadable=0.01, agreement=0.70, mean=3.0, spread=0.5, position_bias=-0.05, scores=scores(0.7))
BETTER = Behaviour(unreadable=0.0, agreement=0.80, mean=3.2, spread=0.6, position_bias=0.04, scores=scores(0.8))


@pytest.fixture
def settings(tmp_path: Path) -> EvolveSettings:
    return EvolveSettings(pool=tmp_path, run=tmp_path / "run")


def test_a_candidate_that_agrees_better_with_the_votes_may_serve(settings: EvolveSettings) -> None:
    assert criteria.judge(BEFORE, BETTER, DECIDED, settings).passed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"unreadable": 0.07, "cut_off": 0.04},
            "7.0% of its answers are unreadable, 1.0% before (cut off by the token ",
        ),
        (
            {"scores": scores(0.6)},
            "agree with 60.0% of the votes on 100 pairs, 70.0% before: the change of -10.0% (68% ",
        ),
        (
            {"scores": {}},
            "nothing shows that it learnt: 100 of the held-back pairs are decided by the votes, and it can ",
        ),
        ({"spread": 0.1}, "collapsed"),
        ({"spread": 1.75}, "widened"),
        ({"mean": 1.9}, "moved by -1.10"),
        ({"position_bias": 0.2}, r"shown first by +20.0%, -5.0% before"),
        ({"position_bias": -0.2}, r"shown first by -20.0%"),
    ],
)
def test_a_worse_candidate_is_refused_with_the_reason(
    settings: EvolveSettings, change: dict[str, float], reason: str
) -> None:
    verdict = criteria.judge(BEFORE, replace(BETTER, **change), DECIDED, settings)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_a_candidate_may_be_what_its_version_was(settings: EvolveSettings) -> None:
    before, after = replace(BEFORE, unreadable=0.2, spread=1.8), replace(BETTER, unreadable=0.21, spread=1.8)
    assert criteria.judge(before, after, DECIDED, settings).passed


def test_weights_that_are_no_numbers_are_refused(settings: EvolveSettings) -> None:
    verdict = criteria.Verdict(BEFORE, None, [criteria.finite_weights(False)])
    assert (verdict.passed, verdict.as_dict()["reasons"]) == (False, ["its weights hold NaN or infinity"])


@pytest.mark.parametrize(("after", "passes"), [(0.71, True), (0.685, True), (0.67, False)])
def test_the_probes_correlation_must_not_fall_far(settings: EvolveSettings, after: float, passes: bool) -> None:
    assert criteria.probe(0.70, after, settings).passed == passes


def test_a_promoted_version_that_is_what_the_gate_saw_stays(settings: EvolveSettings) -> None:
    assert criteria.regressions(BETTER, replace(BETTER, scores=scores(0.79, 0.1)), DECIDED, settings) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"scores": scores(0.8, 0.3)}, "differ from those at the gate by 0.30"), ({"scores": scores(0.7)}, "70.0%")],
)
def test_a_promoted_version_that_differs_from_what_the_gate_saw_has_regressed(
    settings: EvolveSettings, change: dict[str, Any], reason: str
) -> None:
    (found,) = criteria.regressions(BETTER, replace(BETTER, **change), DECIDED, settings)
    assert reason in found


@pytest.mark.parametrize("loss", [0.05, 1.0])
def test_without_a_decided_pair_nothing_was_learnt_and_nothing_is_promoted(
    settings: EvolveSettings, loss: float
) -> None:
    settings.gate_agreement_loss = loss
    verdict = criteria.judge(replace(BEFORE, agreement=0.0), replace(BETTER, agreement=0.0), {}, settings)
    assert verdict.reasons[0].startswith("nothing shows that it learnt: 0 of the held-back pairs are decided")


def test_a_loss_that_chance_explains_is_refused_only_where_it_may_be_a_large_one(settings: EvolveSettings) -> None:
    after = replace(BETTER, scores=scores(0.69))
    assert criteria.judge(BEFORE, after, DECIDED, settings).passed
    settings.gate_agreement_loss = 0.015
    assert not criteria.judge(BEFORE, after, DECIDED, settings).passed


def test_the_interval_of_pairs_without_a_common_picture_is_that_of_a_share_with_three_times_its_variance() -> None:
    found = change(scores(0.7), scores(0.85), DECIDED)
    assert found is not None
    assert (found.before, found.after) == (0.7, 0.85)
    deviation = (3 * 0.15 * 0.85 / 100) ** 0.5  # a pair counts as often as both its pictures were drawn
    assert found.interval == pytest.approx((0.15 - deviation, 0.15 + deviation), abs=0.01)


def test_with_the_default_number_of_pictures_the_gate_is_seldom_wrong() -> None:
    pictures = PoolSettings.model_fields["held_back_groups"].default * gate.GROUP
    assert gate.passed(pictures, "its interval", rounds=25, loss=0.0, shared=0.5) >= 0.8
    assert gate.passed(pictures, "its interval", rounds=25, loss=0.05, shared=0.5) <= 0.2


def test_agreement_counts_decided_pairs_and_halves_tied_scores() -> None:
    means = {"a": 4.0, "b": 3.0, "c": 3.0, "d": 2.0}
    labels = {("a", "b"): 1.0, ("a", "d"): 0.0, ("b", "c"): 1.0, ("c", "d"): 0.5}
    found = behaviour(np.array([[4.0, np.nan], [3, 3]]), means, list(labels), labels, [0, 0, 0, 1])
    assert found.agreement == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.unreadable == 0.25
    assert found.position_bias == 0.25


def asked(probe: Probe, replicas: Replicas) -> float:
    with replicas.workers() as workers:
        return probe(Served(replicas.first.first), workers, PROFILES["plain"])


def test_scores_that_follow_the_labels_correlate_with_them(replicas: Replicas, tmp_path: Path) -> None:
    folder = brightness(tmp_path).root
    assert asked(Probe.of(folder, samples=2, seed=0), replicas) == 1
    rows = [f"{level}.png,{255 - level}" for level in LEVELS]
    (folder / "labels.csv").write_text("\n".join(["image,mos", *rows]))
    assert asked(Probe.of(folder, samples=2, seed=0), replicas) == -1


def test_scores_that_do_not_vary_or_cannot_be_read_are_worth_nothing(replicas: Replicas, tmp_path: Path) -> None:
    probe = Probe.of(brightness(tmp_path).root, samples=2, seed=0)
    for text in ("3.00", "no number"):
        for world in replicas.worlds:
            world.engine.answer = lambda *_, text=text: text
        assert asked(probe, replicas) == 0


def test_a_picture_that_cannot_be_decoded_is_left_out_and_told(replicas: Replicas, tmp_path: Path) -> None:
    one = brightness(tmp_path, levels=range(0, 250, 5))
    one.images[3].write_bytes(b"no picture")
    probe = Probe.of(one.root, samples=2, seed=0)
    assert probe.notes[1:] == ["probe brightness: 1 images cannot be decoded: images/15.png"]
    assert probe.benchmark.mos.tolist() == [mos for number, mos in enumerate(one.mos) if number != 3]
    assert asked(probe, replicas) > 0.99


def test_a_probe_of_which_many_cannot_be_decoded_is_refused_before_the_round(tmp_path: Path) -> None:
    one = brightness(tmp_path)
    one.images[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 images of the probe \S+ cannot be decoded \(images/130\.png"):
        Probe.of(one.root, samples=2, seed=0)


def test_it_tells_how_many_images_it_has_and_which_are_missing(tmp_path: Path) -> None:
    folder = brightness(tmp_path, levels=range(0, 250, 5)).root
    (folder / "images" / "45.png").unlink()
    assert Probe.of(folder, samples=1, seed=0).notes == [
        "probe brightness: 49 images", "probe brightness: 1 images missing: 45.png",
    ]  # fmt: skip


def test_a_run_tells_it_before_its_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = brightness(tmp_path, levels=range(0, 250, 5)).root, tmp_path / "run"
    (folder / "images" / "45.png").unlink()
    flags = {"--pool": folder / "images", "--run": run, "--store": tmp_path, "--probe": folder}
    arguments = [str(word) for flag in flags.items() for word in flag]
    monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve", *arguments])
    with pytest.raises(SystemExit):  # there is no service
        app()
    assert "probe brightness: 1 images missing: 45.png" in capsys.readouterr().out
