"""Photographs of 12 megapixels, too many tokens for the context: scaled, and told, on every route."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evoquality import encode_image
from evoquality.contract import CompareOptions, ExactVotesRequest, ImageSize, RankOptions, RolloutPrompt, RolloutRequest
from service.images.picture import Limits, decode
from service.prompts import PROFILES
from tests.engine.checkpoints import perturbed
from tests.engine.running import Running, running
from tests.engine.test_evaluate import evaluate, finished, results
from trainer.training.policy import LoraPolicy

pytestmark = pytest.mark.engine

SIZES = [(4000, 3000), (3000, 4000), (8000, 1500), (4200, 2800)]


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    files = []
    for number, size in enumerate(SIZES):
        coarse = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90 - 25 * number)
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module")
def large(checkpoint: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of a checkpoint whose processor takes pictures as large as Qwen2.5-VL's does."""
    folder = tmp_path_factory.mktemp("large")
    source = shutil.copytree(checkpoint, folder / "checkpoint")
    config = json.loads((source / "processor_config.json").read_text())
    config["image_processor"]["size"]["longest_edge"] = 12_845_056
    (source / "processor_config.json").write_text(json.dumps(config))
    settings = {"CHECKPOINT": str(source), "MAX_ANSWER_TOKENS": "96", "CANARY_MIN_READABLE": "0"}
    env = {**environment, **{f"EVOQUALITY_{name}": value for name, value in settings.items()}}
    with running(folder / "store", folder / "log", env) as started:
        yield started


def tokens(size: ImageSize) -> int:
    assert size.seen_width and size.seen_height
    assert size.seen_width < size.width and size.seen_height < size.height
    return size.seen_width * size.seen_height // 28**2


def test_every_route_answers_and_tells_the_size_that_the_model_saw(large: Running, photographs: list[bytes]):
    limit = large.public.info().max_pixels
    assert limit and 100_000 < limit < 200_000
    scored = [large.public.score(photograph) for photograph in photographs]
    assert [(answer.image.width, answer.image.height) for answer in scored] == SIZES
    batch = large.public.score_batch(photographs)
    assert [item.result.image for item in batch.results if item.result] == [answer.image for answer in scored]
    for options in (CompareOptions(), CompareOptions(samples=2)):
        compared = large.public.compare(photographs[0], photographs[1], options)
        assert compared.images == [answer.image for answer in scored[:2]]
    ranked = large.public.rank(photographs, RankOptions()).ranking
    assert {place.index: place.image for place in ranked} == {n: answer.image for n, answer in enumerate(scored)}

    encoded = {str(number): encode_image(photograph) for number, photograph in enumerate(photographs)}
    prompts = [RolloutPrompt(task="score", images=[key], samples=2) for key in encoded]
    prompts.append(RolloutPrompt(task="compare", images=["0", "2"], samples=2))
    seen = large.operators.rollouts(RolloutRequest(images=encoded, prompts=prompts)).results
    image_token = json.loads((large.store.path(large.active) / "config.json").read_text())["image_token_id"]
    shown = [result.prompt_token_ids.count(image_token) for result in seen]
    told = [tokens(answer.image) for answer in scored]
    assert shown == [*told, told[0] + told[2]]
    assert max(told) * 28**2 > 0.9 * limit
    votes = large.operators.exact_votes(ExactVotesRequest(images=encoded, pairs=[("0", "1"), ("1", "2")]))
    assert all(0 < vote.forward.first + vote.forward.second <= 1 for vote in votes.results)


def test_the_trainer_sees_a_photograph_as_the_engine_does(large: Running, photographs: list[bytes]):
    info = large.operators.info()
    prompt = RolloutPrompt(task="score", images=["a"], samples=4, seed=1)
    request = RolloutRequest(images={"a": encode_image(photographs[0])}, prompts=[prompt])
    [rollout] = large.operators.rollouts(request).results
    pixels = {"min_pixels": info.min_pixels, "max_pixels": info.max_pixels}
    policy = LoraPolicy(large.store.path(large.active), PROFILES["plain"], rank=4, seed=0, pixels=pixels)
    picture = decode(photographs[0], Limits(max_pixels=40_000_000, min_side=28))
    answers = [completion.token_ids for completion in rollout.completions]
    with torch.no_grad():
        found = policy.network.logprobs(policy.network.encode([picture]), [answers])
    assert found.prompts == [rollout.prompt_token_ids]
    for row, completion in enumerate(rollout.completions):
        ours = found.chosen[0, row, : len(completion.token_ids)].tolist()
        assert ours == pytest.approx(completion.logprobs, abs=1e-3)


def test_photographs_are_evaluated(large: Running, photographs: list[bytes], tmp_path: Path):
    folder = tmp_path / "photographs"
    (folder / "images").mkdir(parents=True)
    for number, photograph in enumerate(photographs):
        (folder / "images" / f"{number}.jpg").write_bytes(photograph)
    rows = "".join(f"{number}.jpg,{5 - number}\n" for number in range(len(photographs)))
    (folder / "labels.csv").write_text(f"image,mos\n{rows}")
    finished(evaluate(folder, tmp_path / "out", large.url, "serving"))
    assert results(tmp_path / "out")["serving"]["benchmarks"]["photographs"]["n"] == len(photographs)


def test_a_version_with_longer_answers_sees_photographs_smaller(
    large: Running, photographs: list[bytes], tmp_path: Path
):
    before, limit = large.active, large.public.info().max_pixels
    source = perturbed(large.store.path(before), tmp_path / "source", seed=1)
    thinking = large.store.add(source, parent=before, profile="evoquality", origin="test").id
    large.operators.promote(thinking)
    info, answer = large.public.info(), large.public.score(photographs[0])
    assert (info.thinks, answer.version) == (True, thinking)
    assert info.max_pixels and limit and 0.4 * limit < info.max_pixels < 0.9 * limit
    prompt = RolloutPrompt(task="compare", images=["a", "a"], samples=1)
    request = RolloutRequest(images={"a": encode_image(photographs[0])}, prompts=[prompt])
    [seen] = large.operators.rollouts(request).results
    image_token = json.loads((large.store.path(thinking) / "config.json").read_text())["image_token_id"]
    assert seen.prompt_token_ids.count(image_token) == 2 * tokens(answer.image)
    assert tokens(answer.image) * 28**2 <= info.max_pixels
    large.operators.promote(before)
    assert large.public.info().max_pixels == limit
