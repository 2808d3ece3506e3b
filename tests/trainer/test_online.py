"""The online stage over an engine made of a torch policy: what is sampled from which weights, and what is resumed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
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

from evoquality.contract import Completion, RolloutPrompt, RolloutResult
from service.versions.store import VersionStore
from tests.trainer.vision_models import PLAIN, embedded_shape, picture
from trainer import termination
from trainer.errors import Collapsed, EngineMismatch, NothingToLearn, PromptMismatch
from trainer.files import read_jsonl
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.settings.evolve import EvolveSettings
from trainer.termination import Terminated
from trainer.training.collapse import check
from trainer.training.handover import AdapterHandover
from trainer.training.learner import Learner, check_mismatch, check_prompt
from trainer.training.online import OnlineStage, rate
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
    "cut_off": 0.0,
    "kl": 0.05,
    "reward": 0.8,
    "informative": 1.0,
}


Says = str | Callable[[list[str]], list[str]] | None
"""What the engine answers instead of its scores, or makes of them."""


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
    says: Says = None
    ends: str = "stop"
    broken: Collection[int] = ()
    """Steps in which one token has no log-probability."""
    off: float = 0.0
    """Nats by which it reports other log-probabilities than torch."""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = policy(self.checkpoint)
        self.tokenizer = AutoProcessor.from_pretrained(self.checkpoint, trust_remote_code=False).tokenizer

    def load_adapter(self, name: str) -> None:
        set_peft_model_state_dict(self.policy._peft, load_file(self.adapters / name / "adapter_model.safetensors"))

    def unload_adapter(self, name: str) -> None:
        self.asked.append(name)

    def rollouts(
        self,
        prompts: Sequence[RolloutPrompt],
        pictures: Pool,
        *,
        logprobs: bool,
        version: str = "v",
        adapter: str | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[RolloutResult]:
        assert logprobs and pictures is self.pool
        if len(self.asked) == self.dies_at:
            raise ConnectionError("killed")
        if len(self.asked) == self.ended_at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        results = []
        for prompt in prompts:
            rng = np.random.default_rng(prompt.seed)
            scores = [f"{score:.2f}" for score in rng.uniform(1, 5, prompt.samples)]
            texts = self.says(scores) if callable(self.says) else [self.says or score for score in scores]
            encoded = self.policy.network.encode([self.pool.open(prompt.images[0])])[0]
            answers = [[*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id] for text in texts]
            with torch.no_grad():
                chosen = (self.policy.network.logprobs([encoded], [answers]).chosen[0] - self.off).tolist()
            completions = [
                Completion(text=text, token_ids=tokens, logprobs=row[: len(tokens)], finish_reason=self.ends)
                for text, tokens, row in zip(texts, answers, chosen, strict=True)
            ]
            results.append(RolloutResult(prompt_token_ids=encoded.token_ids, completions=completions))
        if len(self.asked) in self.broken:
            results[-1].completions[0].logprobs[0] = float("nan")
        return results


def train(
    checkpoint: Path,
    pool: Pool,
    run: Path,
    dies_at: int | None = None,
    ended_at: int | None = None,
    says: Says = None,
    ends: str = "stop",
    broken: Collection[int] = (),
    off: float = 0.0,
    **changes: Any,
) -> LoraPolicy:
    store = VersionStore(run / "store")
    (store.root / "adapters").mkdir(parents=True, exist_ok=True)
    engine = TorchEngine(checkpoint, pool, store.root / "adapters", dies_at, ended_at, says, ends, broken, off)
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
        told = learner.accumulate(shown, engine.rollouts(asked(images), pool, logprobs=True), advantage)
        found.append((told, [parameter.grad for parameter in trained.trainable()]))
    for told, gradients in found[1:]:
        assert told == pytest.approx(found[0][0], abs=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert found[0][0]["images_trained"] == 3
    assert found[0][0]["entropy"] > 1


def asked(images: list[str]) -> list[RolloutPrompt]:
    return [RolloutPrompt(task="score", images=[image], samples=4, seed=3) for image in images]


def test_a_prompt_that_engine_and_trainer_read_differently_is_refused() -> None:
    check_prompt("x", [1, 2, 3], [1, 2, 3])
    with pytest.raises(PromptMismatch, match="max-pixels"):
        check_prompt("x", [1, 2, 3], [1, 2, 2, 3])
    with pytest.raises(PromptMismatch, match="chat template"):
        check_prompt("x", [1, 2, 3], [1, 2, 4])


@pytest.mark.parametrize(("off", "dtype", "limit"), [(0.03, "float32", "0.02"), (-0.2, "bfloat16", "0.15")])
def test_an_engine_that_disagrees_ends_the_round_before_its_first_step_with_what_to_look_at(
    checkpoint: Path, pool: Pool, tmp_path: Path, off: float, dtype: str, limit: str
) -> None:
    with pytest.raises(
        EngineMismatch, match=rf"is {abs(np.expm1(off)):.3f} .* allows {limit}\).*--dtype.*--max-pixels"
    ):
        train(checkpoint, pool, tmp_path, off=off, dtype=dtype)
    assert metrics(tmp_path) == []


@pytest.mark.parametrize(("off", "changes"), [(0.1, {"dtype": "bfloat16"}), (0.1, {"mismatch": 0.2})])
def test_an_engine_within_the_limit_may_sample(
    checkpoint: Path, pool: Pool, tmp_path: Path, off: float, changes: dict[str, Any]
) -> None:
    train(checkpoint, pool, tmp_path, off=off, **changes)
    assert metrics(tmp_path)[0]["mismatch"] == pytest.approx(np.expm1(off), rel=1e-3)


def test_a_mismatch_that_is_no_number_ends_the_round(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch):
        check_mismatch(float("nan"), "float32", EvolveSettings(pool=tmp_path, run=tmp_path))


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


def test_unreadable_answers_of_a_sure_policy_become_less_likely(checkpoint: Path, pool: Pool, tmp_path: Path) -> None:
    sure = {"collapse_constant": 1.0, "collapse_spread": 0.0, "learning_rate": 1e-2}
    trained = train(checkpoint, pool, tmp_path, says=lambda scores: ["2.00"] * (len(scores) - 1) + ["good"], **sure)
    assert [row["informative"] for row in metrics(tmp_path)] == [1.0] * len(STEPS)
    assert [row["constant"] for row in metrics(tmp_path)] == [1.0] * len(STEPS)
    assert [row["unreadable"] for row in metrics(tmp_path)] == [0.25] * len(STEPS)
    answer = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False).tokenizer("good")["input_ids"]
    prompts = trained.network.encode([pool.open(image.id) for image in pool.images])
    with torch.no_grad():
        after = trained.network.logprobs(prompts, [[answer]] * len(prompts)).chosen
        with trained.reference():
            before = trained.network.logprobs(prompts, [[answer]] * len(prompts)).chosen
    assert (after[:, 0, 0] < before[:, 0, 0] - 0.1).all()


def half_cut_off(scores: list[str]) -> list[str]:
    return ["2.00", "2.00", "<think>", "<think>"]


def test_answers_that_the_token_limit_cut_off_are_counted_apart_and_earn_the_lowest_reward(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    train(checkpoint, pool, tmp_path, says=half_cut_off, ends="length", collapse_constant=1.0, collapse_spread=0.0)
    for row in metrics(tmp_path):
        assert (row["cut_off"], row["unreadable"], row["images_trained"]) == (0.5, 0.0, 4.0)


def test_masked_they_take_no_part_in_the_step(checkpoint: Path, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn, match="0% of the answers are unreadable and 50% cut off by the token limit"):
        train(checkpoint, pool, tmp_path, says=half_cut_off, ends="length", cut_off="masked")
    assert {row["images_trained"] for row in metrics(tmp_path)} == {0.0}
    trained = [
        learnt(checkpoint, pool, tmp_path, advantage)
        for advantage in ([1.0, -1.0, np.nan, np.nan], [1.0, -1.0, 0.0, 0.0], [1.0, -1.0])
    ]
    assert trained[0] == pytest.approx(trained[2])
    assert trained[0] != pytest.approx(trained[1])


def learnt(checkpoint: Path, pool: Pool, folder: Path, advantage: list[float]) -> dict[str, float]:
    """The metrics of a step on the first answers about two images."""
    images = group(pool, STEPS[0])[:2]
    rollouts = TorchEngine(checkpoint, pool, folder).rollouts(asked(images), pool, logprobs=True)
    few = [each.model_copy(update={"completions": each.completions[: len(advantage)]}) for each in rollouts]
    learner = Learner(policy(checkpoint), EvolveSettings(pool=folder, run=folder))
    told = learner.accumulate({image: pool.open(image) for image in images}, few, np.array([advantage] * 2))
    return told | {"norm": learner.step(1.0)}


def test_a_collapse_that_nobody_saw_before_the_kill_is_seen_at_the_next_start(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    train(checkpoint, pool, tmp_path)
    with pytest.raises(Collapsed, match=f"to step {len(STEPS) - 1} "):
        train(checkpoint, pool, tmp_path, collapse_kl=0.0)


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_leaves_no_trace(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    trained = train(checkpoint, pool, tmp_path, broken=[1, 3])
    rows = metrics(tmp_path)
    assert [row["skipped"] for row in rows] == [0, 1, 0, 1, 0]
    assert [row["loss"] is None for row in rows] == [False, True, False, True, False]
    assert all(torch.isfinite(tensor).all() for tensor in trained.state().values())
    saved = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(saved["policy"][name], tensor) for name, tensor in trained.state().items())


def test_several_steps_in_a_row_that_are_not_finite_end_the_training_with_weights_that_are(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    for _ in range(2):  # when it is started again, too
        with pytest.raises(Collapsed, match=r"step 3: loss or gradients of 3 steps in a row were not finite"):
            train(checkpoint, pool, tmp_path, broken=[1, 2, 3])
    assert len(metrics(tmp_path)) == 4
    saved = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)
    assert saved["steps"] == 4 and all(torch.isfinite(tensor).all() for tensor in saved["policy"].values())


def test_one_infinite_gradient_moves_neither_weights_nor_optimizer(
    checkpoint: Path, pool: Pool, tmp_path: Path
) -> None:
    images = group(pool, STEPS[0])
    rollouts = TorchEngine(checkpoint, pool, tmp_path).rollouts(asked(images), pool, logprobs=True)
    shown, advantage = {image: pool.open(image) for image in images}, np.tile([1.0, -1.0, 0.5, 0.2], (4, 1))

    def after(breaks: list[bool]) -> dict[str, torch.Tensor]:
        learner = Learner(policy(checkpoint), EvolveSettings(pool=tmp_path, run=tmp_path))
        for broken in breaks:
            learner.accumulate(shown, rollouts, advantage)
            if broken:
                learner.policy.trainable()[3].grad[0, 0] = float("inf")
            assert np.isfinite(learner.step(1.0)) != broken
        return learner.policy.state()

    found, expected = after([False, True, False]), after([False, False])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nothing() -> None:
    assert [rate(step, 4, 0) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [rate(step, 8, 3) for step in range(8)] == pytest.approx([0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2])
    assert rate(0, 2, 5) == pytest.approx(1 / 6)


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
        ({"unreadable": 0.8}, "80% of the answers are unreadable or cut off"),
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


def test_answers_cut_off_count_as_answers_without_a_score(settings: EvolveSettings) -> None:
    check(series(*[{"unreadable": 0.3, "cut_off": 0.1}] * 5), settings)
    with pytest.raises(Collapsed, match="60% of the answers are unreadable or cut off"):
        check(series(*[{"unreadable": 0.3, "cut_off": 0.3}] * 5), settings)


def test_a_step_that_is_skipped_lacks_figures_and_is_no_collapse(settings: EvolveSettings) -> None:
    check(series(*[{"skipped": 1.0, "entropy": None, "kl": None}] * 5), settings)
