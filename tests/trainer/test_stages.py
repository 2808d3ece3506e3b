"""A round's beginning and its end, against replicas of the service without a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from evoquality.contract import RolloutResult
from service.versions.contents import ignored
from tests.trainer.promoting import answer_as, changed, context, gated, observer, serving
from tests.trainer.replicas import Replicas
from trainer.errors import GateRefused, Regressed, WrongVersion
from trainer.files import read_json, write_json
from trainer.promotion.behaviour import Observer
from trainer.stages.context import RoundContext
from trainer.stages.gate import run_gate
from trainer.stages.promote import promote
from trainer.stages.start import start
from trainer.training.handover import Handover
from trainer.training.learner import Compared, Learner
from trainer.training.rollouts import Served
from trainer.workers.workers import Workers

__all__ = ["context", "gated", "observer"]


def test_a_round_starts_from_the_active_version_though_the_first_replica_did_not_follow_to_it(
    context: RoundContext, replicas: Replicas
) -> None:
    with replicas.workers() as workers:
        workers.promote(replicas.first.second, replicas.first.first)
    replicas.worlds[0].service.swap_lock.version = replicas.first.store.info(replicas.first.first)
    replicas.worlds[0].engine.version = replicas.first.first
    start(context)
    assert context.base == replicas.first.second


def test_a_round_goes_on_with_the_settings_it_began_with_only(context: RoundContext) -> None:
    start(context)
    start(changed(context, threads=1, rounds=5, gate_drift=0.5, patience=1))
    with pytest.raises(ValueError, match=r"--seed 3 \(was 0\), --learning-rate 0.5 \(was 0.001\); give those"):
        start(changed(context, learning_rate=0.5, seed=3))


def test_a_round_of_an_earlier_version_had_the_defaults_of_settings_that_came_later(context: RoundContext) -> None:
    start(context)
    file = context.folder / "start.json"
    began = read_json(file)
    for later in ("reward", "labels", "permute"):
        del began["settings"][later]
    write_json(file, began)
    start(context)
    with pytest.raises(ValueError, match=r"--reward regression \(was fidelity\)"):
        start(changed(context, reward="regression"))


def test_a_round_does_not_go_on_after_another_version_was_promoted(context: RoundContext, replicas: Replicas) -> None:
    start(context)
    context.workers.promote(replicas.first.second, replicas.first.first)
    with pytest.raises(WrongVersion, match=f"started from {replicas.first.first}"):
        start(context)


def test_a_promoted_version_that_is_as_the_gate_saw_it_stays_and_may_be_promoted_again(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    for _ in range(2):  # a kill after the swap leaves no promotion.json
        (gated.folder / "promotion.json").unlink(missing_ok=True)
        promote(gated, observer)
        assert serving(replicas) == [replicas.first.second] * 2
    assert read_json(gated.folder / "promotion.json")["previous"] == replicas.first.first


def test_a_promoted_version_that_answers_otherwise_is_rolled_back_and_marked(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    for number in (0, 1):
        answer_as(replicas, "4.90", number)
    for _ in range(2):  # however often it is started again
        with pytest.raises(Regressed, match="at the gate"):
            promote(gated, observer)
        assert serving(replicas) == [replicas.first.first] * 2
    assert "at the gate" in str(gated.store.refusal(replicas.first.second))


def test_a_version_that_one_replicas_canaries_refuse_is_rolled_back_on_the_others_and_marked(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    answer_as(replicas, "I cannot tell.", 1)
    with pytest.raises(Regressed, match=r"the service refused it .unreadable_canaries"):
        promote(gated, observer)
    assert serving(replicas) == [replicas.first.first] * 2
    assert "unreadable_canaries" in str(gated.store.refusal(replicas.first.second))


def test_a_rollback_that_was_killed_is_carried_out_at_the_next_start(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    gated.workers.promote(replicas.first.second, replicas.first.first)
    write_json(gated.folder / "rollback.json", {"version": replicas.first.second, "reason": "it was worse"})
    start(gated)
    with pytest.raises(Regressed, match="it was worse"):
        promote(gated, observer)
    assert serving(replicas) == [replicas.first.first] * 2
    assert "it was worse" in str(gated.store.refusal(replicas.first.second))


def test_a_replica_that_cannot_be_rolled_back_is_named(
    gated: RoundContext, observer: Observer, replicas: Replicas, capsys: pytest.CaptureFixture[str]
) -> None:
    gated.workers.promote(replicas.first.second, replicas.first.first)
    write_json(gated.folder / "rollback.json", {"version": replicas.first.second, "reason": "it was worse"})
    replicas.stop(1)
    with pytest.raises(Regressed):
        promote(gated, observer)
    assert f"{replicas.urls[1]} has not swapped to {replicas.first.first}" in capsys.readouterr().out


def test_a_candidate_that_failed_the_gate_is_not_promoted(
    gated: RoundContext, observer: Observer, replicas: Replicas
) -> None:
    verdict = json.loads((gated.folder / "gate.json").read_text())
    write_json(gated.folder / "gate.json", verdict | {"passed": False, "reasons": ["it drifts"]})
    with pytest.raises(GateRefused, match="it drifts"):
        promote(gated, observer)
    assert serving(replicas) == [replicas.first.first] * 2


@dataclass
class Learnt:
    """A learner without torch, whose written weights keep a share of what it learnt."""

    source: Path
    share: float

    def is_finite(self) -> bool:
        return True

    def save_checkpoint(self, folder: Path) -> None:
        shutil.copytree(self.source, folder, ignore=ignored, dirs_exist_ok=True)

    def compare(self, written: Path, shown: dict[str, Image.Image], rollouts: list[RolloutResult]) -> list[Compared]:
        assert (written / "model.safetensors").exists()
        assert [len(rollout.completions) for rollout in rollouts] == [2] * len(shown)
        learnt = np.random.default_rng(0).normal(scale=0.05, size=(len(shown), 30))
        return [Compared(row - 1, self.share * row - 1, np.full(30, -1.0)) for row in learnt]


@dataclass
class Direct:
    """The policy answers as the version it came from."""

    workers: Workers
    version: str

    @contextmanager
    def served(self, learner: Learnt, label: str) -> Iterator[Served]:
        yield Served(self.version)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_candidate_whose_weights_as_written_lost_what_was_learnt_is_refused(
    context: RoundContext, observer: Observer, replicas: Replicas, share: float
) -> None:
    start(context)
    learner = Learnt(context.store.path(replicas.first.second), share)
    run_gate(context, cast(Learner, learner), cast(Handover, Direct(context.workers, context.base)), observer, None)
    verdict = read_json(context.folder / "gate.json")
    candidate = read_json(context.folder / "candidate.json")["id"]
    found = {each["name"]: each for each in verdict["criteria"]}["weights as written: share of what was learnt"]
    assert (found["after"], found["limit"]) == (pytest.approx(share), 0.8)
    assert verdict["passed"] == found["passed"] == (share == 1)
    told = context.store.refusal(candidate)
    assert told is None if share == 1 else "keep 10% of what was learnt" in str(told)
