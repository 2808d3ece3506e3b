"""The online stage over an engine made of a torch policy: what is sampled from which weights, and what is resumed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoProcessor

from evoquality.contract import Completion, RolloutRequest, RolloutResponse, RolloutResult
from service.versions.store import VersionStore
from tests.trainer.vision_models import PLAIN, embedded_shape, picture
from trainer import termination
from trainer.errors import Collapsed, NothingToLearn, PromptMismatch
from trainer.files import read_jsonl
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.settings.evolve import EvolveSettings
from trainer.termination import Terminated
from trainer.training.collapse import check
from trainer.training.handover import AdapterHandover
from trainer.training.learner import Learner, check_prompt
from trainer.training.online import OnlineStage
from trainer.training.policy import LoraPolicy
from trainer.training.reward import Ranking
from trainer.workers.workers import Workers

STEPS = [[0, 1, 2, 3], [2, 3, 4, 5], [0, 2, 4, 5], [1, 3, 4, 5], [0, 1, 4, 5]]
"""Places in the pool."""
HEALTHY = {
    "entropy": 0.6,
    "score_spread": 0.4,
    "constant": 0.0,
    "unreadable": 0.02,
    "kl": 0.05,
    "reward": 0.8,
    "informative": 1.0,
}


class Whole(NamedTuple):
    """The results of a whole training."""

    state: dict[str, torch.Tensor]
    metrics: list[dict[str, float]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_shape(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    images, folder = [], tmp_path_factory.mktemp("pool")
    for number in range(6):
        path = folder / f"{number}.png"
        picture(number, 56 + 28 * (number % 3), 84).save(path)
        own = content_id(path.read_bytes())
        images.append(PoolImage(own, str(path), own))
    return Pool(images)


def group(pool: Pool, places: list[int]) -> list[str]:
    return [pool.images[place].id for place in places]


def policy(checkpoint: Path) -> LoraPolicy:
    return LoraPolicy(checkpoint, PLAIN, rank=4, seed=0)


@dataclass
class TorchEngine:
    """Answers any score, with the log-probability that the policy handed over gives it."""

    checkpoint: Path
    pool: Pool
    adapters: Path
    dies_at: int | None = None
    ended_at: int | None = None
    says: str | None = None
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = policy(self.checkpoint)
        self.tokenizer = AutoProcessor.from_pretrained(self.checkpoint, trust_remote_code=False).tokenizer

    def load_adapter(self, name: str) -> None:
        set_peft_model_state_dict(self.policy._peft, load_file(self.adapters / name / "adapter_model.safetensors"))

    def unload_adapter(self, name: str) -> None:
        self.asked.append(name)

    def rollouts(self, request: RolloutRequest) -> RolloutResponse:
        if len(self.asked) == self.dies_at:
            raise ConnectionError("killed")
        if len(self.asked) == self.ended_at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        results = []
        for prompt in request.prompts:
            rng = np.random.default_rng(prompt.seed)
            texts = [self.says or f"{score:.2f}" for score in rng.uniform(1, 5, prompt.samples)]
            encoded = self.policy.network.encode([self.pool.open(prompt.images[0])])[0]
            answers = [[*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id] for text in texts]
            with torch.no_grad():
                chosen = self.policy.network.logprobs([encoded], [answers]).chosen[0].tolist()
            completions = [
                Completion(text=text, token_ids=tokens, logprobs=row[: len(tokens)], finish_reason="stop")
                for text, tokens, row in zip(texts, answers, chosen, strict=True)
            ]
            results.append(RolloutResult(prompt_token_ids=encoded.token_ids, completions=completions))
        return RolloutResponse(results=results, adapter=request.adapter, version="v")


def train(
    checkpoint: Path,
    pool: Pool,
    run: Path,
    dies_at: int | None = None,
    ended_at: int | None = None,
    says: str | None = None,
    **changes: Any,
) -> LoraPolicy:
    store = VersionStore(run / "store")
    (store.root / "adapters").mkdir(parents=True, exist_ok=True)
    engine = TorchEngine(checkpoint, pool, store.root / "adapters", dies_at, ended_at, says)
    settings = EvolveSettings(pool=run, run=run, samples=4, checkpoint_every=2, **changes)
    target = Ranking({(a.id, b.id): float(a.id > b.id) for a, b in permutations(pool.images, 2)}, settings.gamma)
    trained = policy(checkpoint)
    way = AdapterHandover(cast(Workers, engine), store, "v", "run")
    stage = OnlineStage(Learner(trained, settings), pool, target, PLAIN, way, settings, seed=1, folder=run / "train")
    stage.run([group(pool, places) for places in STEPS], lambda metrics, steps: None)
    assert [name.split("-")[1] for name in engine.asked] == [f"s{n:05d}" for n in range(len(STEPS))][
        -len(engine.asked) :
    ]
    return trained


def metrics(run: Path) -> list[dict[str, float]]:
    return list(read_jsonl(run / "train" / "steps.jsonl"))


@pytest.fixture(scope="module")
def whole(checkpoint: Path, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Whole]:
    """A training that nothing interrupts, with overlap or without."""

    @cache
    def trained(overlap: bool) -> Whole:
        run = tmp_path_factory.mktemp("whole")
        return Whole(train(checkpoint, pool, run, overlap=overlap).state(), metrics(run))

    return trained


def test_rollouts_overlap_one_step_behind(whole: Callable[[bool], Whole]) -> None:
    rows = whole(True).metrics
    assert [row["step"] for row in rows] == list(range(len(STEPS)))
    assert all(row["mismatch"] < 1e-4 for row in rows), "engine and torch are compared under the same weights"
    assert rows[0]["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert all(abs(row["ratio_max"] - 1) > 1e-3 for row in rows[1:]), "sampled before the last update"


def test_without_overlap_every_step_is_on_policy(whole: Callable[[bool], Whole]) -> None:
    assert all(row["ratio_max"] == pytest.approx(1, abs=1e-4) for row in whole(False).metrics)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_killed_training_ends_in_the_same_weights(
    checkpoint: Path, pool: Pool, whole: Callable[[bool], Whole], tmp_path: Path, overlap: bool
) -> None:
    with pytest.raises(ConnectionError, match="killed"):
        train(checkpoint, pool, tmp_path, dies_at=3, overlap=overlap)
    shutil.rmtree(tmp_path / "store")
    found, expected = train(checkpoint, pool, tmp_path, overlap=overlap).state(), whole(overlap)
    assert all(torch.equal(found[name], expected.state[name]) for name in expected.state)
    assert [row["reward"] for row in metrics(tmp_path)] == [row["reward"] for row in expected.metrics]


def test_a_checkpoint_of_another_adapter_is_refused_with_the_reason(checkpoint: Path, tmp_path: Path) -> None:
    settings, file = EvolveSettings(pool=tmp_path, run=tmp_path), tmp_path / "checkpoint.pt"
    Learner(policy(checkpoint), settings).save(file, 1, None)
    with pytest.raises(ValueError, match="another --policy, --rank"):
        Learner(LoraPolicy(checkpoint, PLAIN, rank=8, seed=0), settings).resume(file)


def test_passes_of_any_size_give_the_same_gradients(checkpoint: Path, pool: Pool, tmp_path: Path) -> None:
    engine, images = TorchEngine(checkpoint, pool, tmp_path), group(pool, STEPS[0])
    advantage = np.array([[1.0, -1.0, 0.5, 0.2], [0.0] * 4, [0.3, 0.4, -2.0, 1.0], [-1.0, 1.0, 1.0, -1.0]])
    found = []
    for size in (100, 200, 10_000):  # two of four answers; a picture and its four; all
        trained = policy(checkpoint)
        learner = Learner(trained, EvolveSettings(pool=tmp_path, run=tmp_path, tokens_per_pass=size))
        shown = {image: pool.open(image) for image in images}
        told = learner.accumulate(shown, engine.rollouts(asked(images)).results, advantage)
        found.append((told, [parameter.grad for parameter in trained.trainable()]))
    for told, gradients in found[1:]:
        assert told == pytest.approx(found[0][0], abs=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert found[0][0]["images_trained"] == 3
    assert found[0][0]["entropy"] > 1


def asked(images: list[str]) -> RolloutRequest:
    prompts = [{"task": "score", "images": [image], "samples": 4, "seed": 3} for image in images]
    return RolloutRequest.model_validate({"images": dict.fromkeys(images, "AA=="), "prompts": prompts})


def test_a_prompt_that_engine_and_trainer_read_differently_is_refused() -> None:
    check_prompt("x", [1, 2, 3], [1, 2, 3])
    with pytest.raises(PromptMismatch, match="max-pixels"):
        check_prompt("x", [1, 2, 3], [1, 2, 2, 3])
    with pytest.raises(PromptMismatch, match="chat template"):
        check_prompt("x", [1, 2, 3], [1, 2, 4])


@pytest.fixture
def listening() -> Iterator[None]:
    """The trainer's way with signals, until the test ends."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    termination.listen()
    yield
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)
    termination._came = None


@pytest.mark.parametrize("ended_at", [1, 4])
def test_a_signal_ends_the_training_with_the_steps_done_in_the_checkpoint(
    checkpoint: Path, pool: Pool, whole: Callable[[bool], Whole], tmp_path: Path, listening: None, ended_at: int
) -> None:
    with pytest.raises(Terminated) as end:
        train(checkpoint, pool, tmp_path, ended_at=ended_at)
    assert end.value.code == 143
    done, saved = max(ended_at - 1, 0), tmp_path / "train" / "checkpoint.pt"
    assert len(metrics(tmp_path)) == done
    assert not done or torch.load(saved, weights_only=True)["steps"] == done
    termination.listen()
    termination._came = None
    found = train(checkpoint, pool, tmp_path).state()
    assert [row["step"] for row in metrics(tmp_path)] == list(range(len(STEPS)))
    for name, tensor in whole(True).state.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_signal_in_a_block_that_must_not_be_done_by_half_takes_effect_at_its_end(listening: None) -> None:
    done = []
    with pytest.raises(Terminated), termination.signals_deferred():
        signal.raise_signal(signal.SIGTERM)
        done.append("all of it")
    assert done


def test_an_absurd_learning_rate_collapses_and_ends_early(checkpoint: Path, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(Collapsed, match="training collapsed"):
        train(checkpoint, pool, tmp_path, learning_rate=30.0, collapse_window=2, collapse_kl=1.0)
    assert len(metrics(tmp_path)) < len(STEPS)


@pytest.mark.parametrize("says", ["3.00", "I cannot tell."])
def test_answers_that_all_earn_one_reward_end_the_training_with_what_to_do(
    checkpoint: Path, pool: Pool, tmp_path: Path, says: str
) -> None:
    for _ in range(2):  # when it is started again, too
        with pytest.raises(
            NothingToLearn, match=r"nothing to learn from: in all 2 steps .*begin a new run from a --base"
        ):
            train(checkpoint, pool, tmp_path, says=says, collapse_window=2)
    assert len(metrics(tmp_path)) == 2


def test_a_collapse_that_nobody_saw_before_the_kill_is_seen_at_the_next_start(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    train(checkpoint, pool, tmp_path)
    with pytest.raises(Collapsed, match=f"to step {len(STEPS) - 1} "):
        train(checkpoint, pool, tmp_path, collapse_kl=0.0)


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
