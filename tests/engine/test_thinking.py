"""A model that thinks, on the real engine: both thinking profiles, and a round of evolution."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from evoquality.contract import CompareOptions, RankOptions, ScoreOptions
from service.answers import read_scores
from service.prompts import PROFILES
from tests.engine.rounds import TinyRound
from tests.engine.running import Running
from trainer.demo.contents import content
from trainer.files import read_json
from trainer.pool.distortions import distort

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def worse_and_worse() -> list[bytes]:
    """A picture with more and more noise."""
    original, files = content("pool", 0), []
    for level in (0, 3, 5):
        picture = distort(original, "white_noise", level, np.random.default_rng(0)) if level else original
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        files.append(stream.getvalue())
    return files


@pytest.fixture(params=["evoquality", "visualquality-r1"])
def asked(thinker: Running, thinking_versions: dict[str, str], request: pytest.FixtureRequest) -> Running:
    """The service with a version of each profile in turn."""
    thinker.operators.promote(thinking_versions[request.param])
    return thinker


def test_thoughts_end_in_readable_scores(asked: Running, worse_and_worse: list[bytes]):
    profile = PROFILES[asked.public.info().profile]
    options = ScoreOptions(mode="sampled", samples=32, seed=0, reasoning=True)
    answers = [asked.public.score(image, options) for image in worse_and_worse]
    for answer in answers:
        assert answer.unreadable < 0.2
        assert answer.score == pytest.approx(np.mean(read_scores(answer.answers, profile)))
        assert np.mean([text.startswith("<think> ") for text in answer.answers]) > 0.8
        assert len({len(text.partition("</think>")[0].split()) for text in answer.answers}) > 3
    assert "noise" in " ".join(answers[-1].answers)
    assert answers[0].score > answers[-1].score + 0.2  # a mediocre judge, by design


def test_thoughts_end_in_votes_for_the_better_picture(asked: Running, worse_and_worse: list[bytes]):
    options = CompareOptions(mode="sampled", samples=32, seed=0, reasoning=True)
    answer = asked.public.compare(worse_and_worse[0], worse_and_worse[-1], options)
    assert answer.preferred == "first"
    assert answer.unreadable < 0.2
    assert np.mean(["</think>" in text for order in answer.orders for text in order.answers]) > 0.8


def test_a_ranking_orders_pictures_by_their_damage(asked: Running, worse_and_worse: list[bytes]):
    shown = worse_and_worse[::-1]
    ranking = asked.public.rank(shown, RankOptions(mode="sampled", samples=16, seed=0)).ranking
    assert ranking[0].index == 2


def test_a_round_of_a_thinking_model_ends_in_a_promotion(
    thinker: Running, thinking_versions: dict[str, str], pool: Path, tmp_path: Path
):
    thinker.operators.promote(thinking_versions["evoquality"])
    tiny = TinyRound(thinker, pool, tmp_path / "run")
    assert tiny.finish("--groups", 3, "--votes", 8) == 0
    assert thinker.active == tiny.candidate != thinking_versions["evoquality"]
    assert thinker.store.info(tiny.candidate).profile == "evoquality"
    assert len(tiny.steps()) == 3
    report = read_json(tiny.run / "report.json")
    assert report["vote"]["pairs"] == 4 * 6
