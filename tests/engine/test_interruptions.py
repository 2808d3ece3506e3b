"""A round that is killed, ended, out of disk, refused, taken back or collapsing, against the real service."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evoquality import ServiceError
from tests.engine.checkpoints import Tensors, rewritten
from tests.engine.conftest import add
from tests.engine.rounds import STEPS, TinyRound, apart, moments
from tests.engine.running import Running
from trainer.files import read_json, write_json
from trainer.voting.votes import labels_of, load

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def probe(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set: the pool's pictures with marks of their own."""
    folder = tmp_path_factory.mktemp("probe")
    shutil.copytree(pool, folder / "images")
    rows = [f"{path.name},{1 + index}" for index, path in enumerate(sorted(pool.iterdir()))]
    (folder / "labels.csv").write_text("image,mos\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(service: Running, first: str, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRound:
    """A round that nothing disturbs."""
    service.operators.promote(first)
    made = TinyRound(service, pool, tmp_path_factory.mktemp("whole") / "run")
    assert made.finish() == 0
    return made


@pytest.fixture
def tiny(service: Running, pool: Path, tmp_path: Path) -> TinyRound:
    return TinyRound(service, pool, tmp_path / "run")


@pytest.fixture
def copied(whole: TinyRound, tmp_path: Path) -> Iterator[TinyRound]:
    """The undisturbed round before its promotion; marks on its candidate are taken off afterwards."""
    shutil.copytree(whole.run, tmp_path / "run")
    made = TinyRound(whole.service, whole.pool, tmp_path / "run")
    for file in ("promoting.json", "promotion.json"):
        (made.folder / file).unlink()
    yield made
    shutil.rmtree(whole.service.store.root / "refused", ignore_errors=True)


def assert_same_end(made: TinyRound, whole: TinyRound, first: str) -> None:
    """Same labels, same weights up to rounding, nothing left behind."""
    labels = [labels_of(load(one.folder / "votes.jsonl")) for one in (made, whole)]
    assert labels[0] == labels[1]
    assert made.steps() == list(range(STEPS))
    store = made.service.store
    moved = apart(store, whole.candidate, first)
    assert moved > 1e-4
    assert apart(store, made.candidate, whole.candidate) < 0.01 * moved
    assert made.leftovers() == set()
    assert made.service.active == made.candidate


def test_a_round_killed_at_twenty_moments_ends_in_the_same(tiny: TinyRound, whole: TinyRound, first: str) -> None:
    adapters, versions = (tiny.service.store.root / name for name in ("adapters", "versions"))
    has = tiny.has
    plan = moments(
        0,
        (lambda: tiny.run.exists(), 0.01),
        (lambda: has("start.json"), 0),
        (lambda: has("start.json"), 0.1),
        (lambda: has("pool.jsonl"), 0.3),
        (lambda: has("pairs.json"), 0.1),
        (lambda: has("pairs.json"), 0.3),
        (lambda: has("votes.jsonl", 1), 0),
        (lambda: has("votes.jsonl", 20), 0.05),
        (lambda: has("votes.done"), 0.3),
        (lambda: has("votes.done"), 1),
        (lambda: has("train/steps.jsonl", 1), 0.2),
        (lambda: has("train/steps.jsonl", 2), 0.01),
        (lambda: has("train/steps.jsonl", 3), 0.2),
        (lambda: has("train/steps.jsonl", 4), 0.2),
        (lambda: has("train/steps.jsonl", 5), 0.1),
        (lambda: any(adapters.glob("*-gate-*")), 0.05),
        (lambda: has("gate.json"), 0),
        # A round that ends in the same bytes as the undisturbed one adds nothing.
        (lambda: any(versions.glob(".adding-*")) or has("candidate.json"), 0),
        (lambda: has("candidate.json"), 0.02),
        (lambda: tiny.service.active != first, 0),
    )
    stages = []
    for reached, delay in plan:
        assert tiny.signal_when(reached, signal.SIGKILL, delay) == -signal.SIGKILL
        stages.append(tiny.stage())
    assert len(stages) == 20
    assert set(stages) >= {"pool", "votes", "train", "gate", "candidate", "promotion"}
    assert tiny.finish() == 0
    assert_same_end(tiny, whole, first)


def test_a_round_that_is_told_to_end_or_finds_no_room_goes_on_to_the_same_end(
    tiny: TinyRound, whole: TinyRound, first: str
) -> None:
    log = tiny.run.with_suffix(".log")
    assert tiny.finish(largest_file=2000) == 5
    assert "could not be written: File too large" in log.read_text()
    for reached, delay in moments(
        1,
        (lambda: tiny.has("pairs.json"), 0.2),
        (lambda: tiny.has("votes.jsonl", 1), 0),
        (lambda: tiny.has("train/steps.jsonl", 1), 0.1),
        (lambda: tiny.has("train/steps.jsonl", 4), 0.1),
    ):
        began = time.monotonic()
        assert tiny.signal_when(reached, signal.SIGTERM, delay) == 143
        assert time.monotonic() - began < 40
    done = len(tiny.steps())
    assert tiny.finish(largest_file=5_000_000) == 5
    assert "candidate" in log.read_text().splitlines()[-1]
    assert 4 <= done <= len(tiny.steps()) == STEPS
    assert tiny.service.active == first
    assert tiny.finish() == 0
    assert_same_end(tiny, whole, first)


def test_a_finished_run_says_so_and_refuses_other_settings_without_a_change(whole: TinyRound) -> None:
    log = whole.run.with_suffix(".log")
    assert whole.finish("--patience", 9) == 0
    assert f"already done: version {whole.candidate} was promoted in round 1" in log.read_text()
    kept = {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()}
    assert whole.finish("--learning-rate", 0.5, "--groups", 9) == 2
    assert "--groups 9 (was 6), --learning-rate 0.5 (was 0.001)" in log.read_text()
    assert {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()} == kept


def test_a_round_whose_photographs_are_moved_away_ends_in_the_same(
    service: Running, whole: TinyRound, pool: Path, tmp_path: Path, first: str
) -> None:
    shutil.copytree(pool, tmp_path / "photos")
    made = TinyRound(service, tmp_path / "photos", tmp_path / "run")
    assert made.signal_when(lambda: made.has("votes.jsonl", 1), signal.SIGKILL) == -signal.SIGKILL
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert made.finish() == 0
    assert_same_end(made, whole, first)


def test_a_pool_of_one_picture_is_not_trained_on(service: Running, pool: Path, tmp_path: Path, first: str) -> None:
    (tmp_path / "photos").mkdir()
    picture = next(pool.iterdir()).read_bytes()
    for number in range(12):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture + bytes([number]))
    made = TinyRound(service, tmp_path / "photos", tmp_path / "run")
    assert made.finish("--variants", 0) == 45
    assert "nothing to learn from: the votes decide 0 of " in made.run.with_suffix(".log").read_text()
    assert (made.stage(), made.steps(), service.active) == ("train", [], first)


def test_a_candidate_that_fails_the_gate_is_kept_marked_and_never_served(
    copied: TinyRound, probe: Path, first: str
) -> None:
    for name in ("gate.json", "candidate.json"):
        (copied.folder / name).unlink()
    assert copied.finish("--gate-position-bias", 0, "--gate-drift", 0, "--probe", probe) == 42
    verdict = read_json(copied.folder / "gate.json")
    assert not verdict["passed"]
    assert "SRCC on the probe" in {criterion["name"] for criterion in verdict["criteria"]}
    assert copied.service.active == first
    assert "moved by" in str(copied.service.store.refusal(copied.candidate))
    with pytest.raises(ServiceError, match="refused: "):
        copied.service.operators.promote(copied.candidate)


def test_a_promoted_version_that_is_not_what_the_gate_saw_is_rolled_back(
    copied: TinyRound, first: str, tmp_path: Path
) -> None:
    store = copied.service.store
    encode = AutoTokenizer.from_pretrained(store.path(first), trust_remote_code=False).encode

    def change(tensors: Tensors) -> None:
        """As readable as before, but who said 2 says 4."""
        rows = [encode(digit)[0] for digit in "24"]
        tensors["model.embed_tokens.weight"][rows] = tensors["model.embed_tokens.weight"][rows[::-1]]

    damaged = add(store, rewritten(store.path(copied.candidate), tmp_path / "damaged", change), first)
    write_json(copied.folder / "candidate.json", {"id": damaged})
    assert copied.finish() == 43
    assert copied.service.active == first
    assert "at the gate" in str(store.refusal(damaged))
    assert copied.finish() == 43
    assert copied.service.active == first


def test_a_round_with_an_absurd_learning_rate_collapses_and_stops_early(tiny: TinyRound, first: str) -> None:
    assert tiny.finish("--learning-rate", 3, "--collapse-window", 2) == 44
    assert len(tiny.steps()) < STEPS
    assert "training collapsed" in tiny.run.with_suffix(".log").read_text()
    assert "collapsed" in (tiny.run / "report.html").read_text()
    assert tiny.service.active == first
