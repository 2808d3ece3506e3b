"""`evolve --dry-run`: what a run would take, told before it begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import count as forever
from pathlib import Path

import pytest

from service.versions.store import VersionStore
from trainer.cli import app
from trainer.pool.pool import Pool, PoolImage
from trainer.pricing import rehearsal
from trainer.pricing.price import Line, Price, count, counts, measured
from trainer.pricing.rehearsal import Rates
from trainer.settings.evolve import EvolveSettings
from trainer.training.fit import Fit
from trainer.voting.groups import pairs_of, random_groups

RATES = Rates(
    exact=True, votes_a_pair=2, file_seconds=0.5, variant_seconds=0.1, pair_seconds=0.2, step_seconds=8.0,
    answer_seconds=0.25, candidate_seconds=4.0, original_bytes=100, variant_bytes=50, pair_bytes=10,
    checkpoint_bytes=7, candidate_bytes=9,
    memory=Fit("cpu", "float32", "off", 32_768, passes=1, held=3, pass_bytes=4, free=9),
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> EvolveSettings:
    return EvolveSettings(
        pool=tmp_path, run=tmp_path / "run", groups=6, group_size=4, held_back_groups=1, variants=3, samples=5, epochs=2
    )


def test_counts_are_those_of_the_groups_that_a_round_draws(settings: EvolveSettings) -> None:
    found = counts(settings, files=50, counted=True, exact=True)
    pool = Pool(
        [PoolImage(f"{n}-{v}", "", str(n), "jpeg" if v else None) for n in range(found.originals) for v in range(4)]
    )
    groups = random_groups(pool, 7, 4, seed=0)
    used = {image for group in groups for image in group}
    assert (found.originals, found.images) == (7, len(pool.images))
    assert found.variants == sum(pool.by_id[image].kind is not None for image in used)
    assert found.pairs == len(pairs_of(groups))
    assert found.votes == 2 * found.pairs
    assert (found.steps, found.rollouts) == (6 * 2, 6 * 2 * 4 * 5)
    look = 4 * 5 + 6 * 2 * 4
    assert (found.scored, found.gate_answers, found.promotion_answers) == (0, 2 * look, look)
    assert counts(settings, 50, True, exact=True, probed=30).gate_answers == 2 * (look + 30 * 5)


def test_a_small_pool_is_drawn_whole(settings: EvolveSettings) -> None:
    found = counts(settings, files=2, counted=True, exact=False)
    assert (found.originals, found.images, found.variants) == (2, 8, 6)
    assert found.votes == found.pairs * settings.votes


def test_scores_that_tell_which_pairs_are_worth_asking_have_their_price(settings: EvolveSettings) -> None:
    settings = settings.model_copy(update={"pairs": "informative"})
    found = counts(settings, files=50, counted=True, exact=True)
    assert found.scored == 4 * (6 * 3 + 1)
    assert {line.stage: line.seconds for line in measured(found, RATES)}["scores"] == found.scored * 0.25


def test_regressing_to_mean_scores_asks_for_those_and_for_the_gates_votes_alone(settings: EvolveSettings) -> None:
    settings = settings.model_copy(update={"reward": "regression"})
    found = counts(settings, files=50, counted=True, exact=True)
    assert (found.pairs, found.scored) == (6, 6 * 4 * 5)


def test_a_pool_too_long_to_be_counted_is_priced_as_at_least_what_was_met(settings: EvolveSettings) -> None:
    line = measured(counts(settings, files=50, counted=False, exact=True), RATES)[0]
    assert line.amounts["files at least"] == 50


def test_counting_ends_in_time() -> None:
    assert count(range(5), seconds=60) == (5, True)
    assert count(forever(), seconds=0.01)[1] is False


def test_the_price_is_what_one_of_each_takes_times_how_many_there_are(settings: EvolveSettings) -> None:
    found = counts(settings, files=50, counted=True, exact=True)
    price = Price(2, measured(replace(found, variants=10, pairs=42), RATES), unmeasured=None)
    seconds = {line.stage: line.seconds for line in price.lines}
    expected = {
        "pool": 25.0, "variants": 1.0, "votes": 42 * 0.2, "GRPO": 12 * 8.0, "gate": 34.0, "candidate": 4.0,
        "promotion": 17.0,
    }  # fmt: skip
    assert seconds == pytest.approx(expected)
    assert price.hours == pytest.approx(2 * sum(expected.values()) / 3600)
    assert price.bytes == 2 * (7 * 100 + 10 * 50 + 42 * 10 + 7 + 9)


def test_under_torchrun_one_process_tells_the_price(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer",
        "--", "evolve", "--dry-run", "--pool", tmp_path / "photos", "--run", tmp_path / "run", "--store", tmp_path,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, env=environment)
    assert (told.returncode, told.stdout.count("8,712 pairs"), told.stdout.count("operator.key")) == (0, 1, 1)


def test_without_a_service_the_counts_are_told_and_why_there_are_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "_PATIENCE_S", 0.0)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"%d" % number)
    (tmp_path / "operator.key").write_text("key")
    store, embedded = VersionStore(tmp_path), Path("trainer/demo/checkpoint")
    store.activate(store.add(embedded, parent=None, profile="plain", origin="test").id)
    flags = [
        "--pool", tmp_path / "photos", "--run", tmp_path / "run", "--store", tmp_path,
        "--price", tmp_path / "price.json", "--operator", "http://127.0.0.1:9",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve", "--dry-run", *map(str, flags)])
    app()
    shown = capsys.readouterr().out
    assert "8,712 pairs" in shown
    assert "No times and disk; nothing was measured" in shown
    told = json.loads((tmp_path / "price.json").read_text())
    assert (told["hours"], told["bytes"]) == (None, None)
    assert told["least_memory"] > (embedded / "model.safetensors").stat().st_size / 2  # in 16 bits
    assert "The training takes at least" in shown
    assert Line(**told["lines"][3]).amounts == {"steps": 100, "rollouts": 100 * 12 * 16}
    assert not (tmp_path / "run").exists()
