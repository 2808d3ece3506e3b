"""Predictions are kept as they come: nothing is asked twice, and nothing is mixed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evoquality.contract import InfoResponse
from tests.service.conftest import Listening, listening, make_listening, picture
from tests.service.fake_engine import plain_answer
from tests.service.gateway import away, gateway
from tests.trainer.brightness import LEVELS, brightness
from trainer.evaluation.evaluate import evaluate, measured
from trainer.evaluation.predictions import Predictions
from trainer.settings.protocol import Protocol

__all__ = ["listening", "make_listening"]

NOBODY = "http://127.0.0.1:9"


def asked(listening: Listening) -> int:
    return len(listening.world.engine.asked)


def test_what_is_there_is_not_asked_again(make_listening: Callable[..., Listening], tmp_path: Path) -> None:
    listening, one, drawn = make_listening(cache_entries=0), brightness(tmp_path), Protocol("sampled", 1)
    first = evaluate(listening.url, [one], drawn, tmp_path / "out")
    file = tmp_path / "out" / "brightness.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:20])  # killed in the midst of a line
    before = asked(listening)
    advanced: list[int] = []
    again = evaluate(listening.url, [one], drawn, tmp_path / "out", advance=advanced.append)
    assert (asked(listening) - before, sum(advanced)) == (len(LEVELS) - 3, len(LEVELS) - 3)
    assert again == first


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_service_that_goes_away_for_a_while_costs_no_image(
    status: int, listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0.01)
    count = itertools.count()
    with gateway(listening.url) as between:
        between.instead = lambda path: away(status)(path) if 3 <= next(count) < 150 else None
        found = evaluate(between.url, [brightness(tmp_path)], Protocol(), tmp_path / "out")
    assert next(count) > 150
    assert (found.refused, found.benchmarks["brightness"].n) == ({}, len(LEVELS))


def test_predictions_of_a_newer_version_of_the_trainer_are_read(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    first = evaluate(listening.url, [one], Protocol(), tmp_path / "out")
    file = tmp_path / "out" / "brightness.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    grown = [{**row, "new": 1, "protocol": {**row["protocol"], "new": 1}} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in grown))
    again = evaluate(NOBODY, [one], Protocol(), tmp_path / "out")
    assert (again.benchmarks, again.protocol) == (first.benchmarks, first.protocol)


def test_with_everything_there_no_service_is_needed(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    first = evaluate(listening.url, [one], Protocol("sampled", 2, 1), tmp_path / "out")
    assert evaluate(NOBODY, [one], Protocol("sampled", 2, 1), tmp_path / "out") == first
    assert (first.version, first.protocol) == (listening.world.first, Protocol("sampled", 2, 1))


def test_a_model_that_does_not_think_is_asked_for_its_expected_score(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    assert evaluate(listening.url, [one], Protocol(), tmp_path / "out").protocol.mode == "expected"
    assert measured([one], Protocol("expected", 99, 99), tmp_path / "out").benchmarks["brightness"].n == len(LEVELS)


@pytest.mark.parametrize("given", [Protocol(), Protocol(thoughts=2), Protocol("expected", seed=3)])
def test_a_model_that_thinks_is_asked_behind_thoughts(make_listening, tmp_path: Path, given: Protocol) -> None:
    place = make_listening(profile="evoquality")
    place.world.engine.answer = lambda *asked: (
        f"<think>{asked[1].seed} {asked[2]}</think> " + rf"\boxed{{{plain_answer(*asked)}}}"
    )
    one = brightness(tmp_path)
    found = evaluate(place.url, [one], given, tmp_path / "out")
    assert found.protocol == Protocol("expected", seed=given.seed, thoughts=given.thoughts or 4)
    assert evaluate(NOBODY, [one], given, tmp_path / "out") == found
    drawn = [sampling for _, sampling, *_ in place.world.engine.asked if sampling.stop]
    assert {sampling.n for sampling in drawn} == {given.thoughts or 4}
    assert len({sampling.seed for sampling in drawn}) == len(drawn) == len(one.images)
    assert not Protocol(thoughts=3).includes(found.protocol)


def test_samples_of_another_number_are_another_protocol(listening: Listening) -> None:
    info = InfoResponse.model_construct(modes=["sampled"], thinks=True)
    assert Protocol(samples=4).settled(info) == Protocol("sampled", 4, 0)
    assert Protocol(samples=4).includes(Protocol("sampled", 4, 0))
    assert not Protocol(samples=4).includes(Protocol("sampled", 8, 0))


def test_the_seed_of_an_image_is_its_own_whatever_else_is_asked(listening: Listening, tmp_path: Path) -> None:
    options = {image: Protocol("sampled", 2, 1).options(image) for image in ("a.png", "b.png")}
    assert options["a.png"].seed != options["b.png"].seed
    assert options["a.png"].seed != Protocol("sampled", 2, 2).options("a.png").seed


@pytest.mark.parametrize("other", [Protocol("expected"), Protocol("sampled", 3, 1), Protocol("sampled", 2, 2)])
def test_another_protocol_than_that_of_the_file_is_refused(
    listening: Listening, tmp_path: Path, other: Protocol
) -> None:
    one = brightness(tmp_path)
    evaluate(listening.url, [one], Protocol("sampled", 2, 1), tmp_path / "out")
    with pytest.raises(ValueError, match=r"brightness\.jsonl holds predictions of the protocol .* --out"):
        evaluate(listening.url, [one], other, tmp_path / "out")


def test_another_version_than_that_of_the_file_is_refused(listening: Listening, tmp_path: Path) -> None:
    few, more = brightness(tmp_path, levels=LEVELS[:4]), brightness(tmp_path / "more")
    evaluate(listening.url, [few], Protocol(), tmp_path / "out")
    listening.operators.post(f"/internal/versions/{listening.world.second}/promote").raise_for_status()
    with pytest.raises(ValueError, match=f"version {listening.world.first}, not of version {listening.world.second}"):
        evaluate(listening.url, [more], Protocol(), tmp_path / "out")


def test_benchmarks_asked_in_different_ways_are_not_taken_together(listening: Listening, tmp_path: Path) -> None:
    one, other = (brightness(tmp_path, name) for name in ("one", "other"))
    evaluate(listening.url, [one], Protocol("expected"), tmp_path / "out")
    evaluate(listening.url, [other], Protocol("sampled", 16), tmp_path / "out")
    with pytest.raises(ValueError, match="protocol 'mode sampled, samples 16, seed 0', not of 'mode expected'"):
        measured([one, other], Protocol(), tmp_path / "out")


def test_a_model_without_a_readable_answer_is_refused_with_what_to_do(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    listening.world.engine.answer = lambda *_: "I like it."
    with pytest.raises(
        ValueError, match=r"images have no score: the model's answer has no score \(\d+\); .*its --profile"
    ):
        evaluate(listening.url, [one], Protocol("sampled", 2), tmp_path / "out")


def test_pictures_that_the_service_refuses_are_told_with_the_advice_that_fits(
    listening: Listening, tmp_path: Path
) -> None:
    one = brightness(tmp_path)
    for image in one.images:
        image.write_bytes(picture(side=9))
    with pytest.raises(ValueError, match=r"smaller than 28 pixels on a side \(\d+\); .*smaller --min-image-side$"):
        evaluate(listening.url, [one], Protocol(), tmp_path / "out")


def test_averages_weigh_a_set_by_its_images_whatever_could_be_read(listening: Listening, tmp_path: Path) -> None:
    one, other = brightness(tmp_path, "one"), brightness(tmp_path, "other", levels=(250, 90, 160, 20))
    one.images[2].write_bytes(b"no picture")
    found = evaluate(listening.url, [one, other], Protocol("sampled", 1), tmp_path / "out")
    plcc = [metrics.plcc for metrics in found.benchmarks.values()]
    assert found.weighted_plcc == pytest.approx(np.average(plcc, weights=[8, 4]))


def test_a_picture_that_the_service_refuses_has_no_score_and_is_listed(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    one.images[2].write_bytes(b"no picture")
    found = evaluate(listening.url, [one], Protocol(), tmp_path / "out")
    assert found.benchmarks["brightness"].n == len(LEVELS) - 1
    assert "invalid_image" in found.refused["brightness"][one.ids[2]]
    assert measured([one], Protocol(), tmp_path / "out").refused == found.refused


def test_an_answer_that_took_too_long_is_asked_for_again(
    make_listening: Callable[..., Listening], tmp_path: Path
) -> None:
    listening, one = make_listening(request_seconds=0.3), brightness(tmp_path)
    engine = listening.world.engine
    slow = engine.generate

    async def generate(*asked: Any, **options: Any) -> Any:
        """Only the first round of questions takes too long."""
        engine.seconds = 60.0 if len(engine.asked) < len(LEVELS) else 0.0
        return await slow(*asked, **options)

    engine.generate = generate  # type: ignore[method-assign]
    found = evaluate(listening.url, [one], Protocol("sampled", 1), tmp_path / "out")
    assert found.benchmarks["brightness"].n == len(LEVELS)
    assert len(engine.asked) > len(LEVELS)


def test_metrics_of_unfinished_predictions_are_refused(listening: Listening, tmp_path: Path) -> None:
    few, more = brightness(tmp_path, levels=LEVELS[:4]), brightness(tmp_path / "more")
    evaluate(listening.url, [few], Protocol(), tmp_path / "out")
    with pytest.raises(ValueError, match="lacks 4 of the benchmark's 8 images"):
        measured([more], Protocol(), tmp_path / "out")


def test_a_prediction_of_another_version_is_not_added(listening: Listening, tmp_path: Path) -> None:
    one = brightness(tmp_path)
    evaluate(listening.url, [one], Protocol(), tmp_path / "out")
    kept = Predictions(tmp_path / "out", "brightness")
    strange = replace(kept.of(one.ids)[0], version="v000000000000")
    with pytest.raises(ValueError, match="v000000000000"):
        kept.add(strange)


def test_a_signal_ends_an_evaluation_with_what_is_there_kept(
    make_listening: Callable[..., Listening], tmp_path: Path
) -> None:
    listening, one = make_listening(), brightness(tmp_path, levels=range(256))
    listening.world.engine.seconds = 0.2
    command = [
        sys.executable, "-m", "trainer", "evaluate", "--benchmarks", str(one.root), "--service", listening.url,
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "out" / "predictions" / "serving" / "brightness.jsonl"
    while process.poll() is None and not kept.exists():
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate()
    assert (process.returncode, said.strip()) == (143, "evoquality-trainer: ended by SIGTERM; start it again to go on")
    assert 0 < len(one.ids) - len(Predictions(kept.parent, "brightness").missing(one.ids)) < len(one.ids)
