"""The trainer against the real service: one tiny round end to end; see test_interruptions for disturbed ones."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from evoquality import encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest
from service.prompts import PROFILES
from tests.engine.checkpoints import Tensors, rewritten
from tests.engine.conftest import add
from tests.engine.running import Running
from trainer.demo.contents import content
from trainer.files import read_json, read_jsonl
from trainer.training.handover import AdapterHandover
from trainer.training.policy import LoraPolicy

pytestmark = pytest.mark.engine
PLAIN = PROFILES["plain"]


def evolve(service: Running, pool: Path, run: Path, *more: str) -> subprocess.Popen[bytes]:
    """A tiny round: 20 images, 7 groups of 4, 6 steps."""
    command = [
        sys.executable, "-m", "trainer", "evolve", "--pool", str(pool), "--run", str(run),
        "--store", str(service.store.root), "--operator", service.operator_url,
        "--rounds", "1", "--variants", "3", "--groups", "6", "--group-size", "4", "--held-back-groups", "1",
        "--samples", "4", "--checkpoint-every", "2", "--rank", "8",
        "--gate-unreadable", "1", "--gate-agreement-loss", "1", "--gate-spread", "0",
        "--gate-largest-spread", "100", "--gate-drift", "4", "--gate-position-bias", "1", *more,
    ]  # fmt: skip
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def adapters_of(service: Running) -> set[str]:
    """The adapter directories in the store."""
    return {path.name for path in (service.store.root / "adapters").iterdir()}


def kill_when(process: subprocess.Popen[bytes], file: Path, lines: int) -> None:
    """Kills the process, as the kernel would, once `file` has that many lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and len(file.read_text().splitlines()) >= lines:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(300) == -signal.SIGKILL


def test_torch_and_engine_agree_on_log_probabilities(service: Running, first: str) -> None:
    policy = LoraPolicy(service.store.path(first), PLAIN, rank=8, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in policy.trainable():
            tensor.add_(0.02 * torch.randn_like(tensor))
    with AdapterHandover(service.operators, service.store, first, "run").served(policy, "agree") as served:
        assert apart(service, policy, served.adapter) < 1e-4
    with policy.reference():
        assert apart(service, policy, None) < 1e-4


def test_torch_and_engine_agree_after_a_swap_that_changed_every_tensor(
    service: Running, first: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0)

    def change(tensors: Tensors) -> None:
        for name in sorted(tensors):
            tensors[name] += 0.05 * tensors[name].std() * noise.standard_normal(tensors[name].shape, np.float32)
            tensors[name] += 0.01 * np.abs(tensors[name]).mean()  # also where all are equal

    version = add(service.store, rewritten(service.store.path(first), tmp_path / "changed", change), first)
    before = LoraPolicy(service.store.path(first), PLAIN, rank=8, seed=0)
    service.operators.promote(version)
    assert apart(service, LoraPolicy(service.store.path(version), PLAIN, rank=8, seed=0)) < 1e-4
    assert apart(service, before) > 1e-2


def apart(service: Running, policy: LoraPolicy, adapter: str | None = None) -> float:
    """The largest difference between the engine's and torch's log-probabilities of sampled scores."""
    picture = content("pool", 0)
    file = io.BytesIO()
    picture.save(file, "PNG")
    prompt = RolloutPrompt(task="score", images=["x"], samples=8, seed=1)
    request = RolloutRequest(images={"x": encode_image(file.getvalue())}, prompts=[prompt], adapter=adapter)
    result = service.operators.rollouts(request).results[0]
    encoded = policy.network.encode([picture])[0]
    assert encoded.token_ids == result.prompt_token_ids
    with torch.no_grad():
        tokens = [completion.token_ids for completion in result.completions]
        found = policy.network.logprobs([encoded], [tokens]).chosen[0]
    return max(
        float((found[row, : len(completion.logprobs)] - torch.tensor(completion.logprobs)).abs().max())
        for row, completion in enumerate(result.completions)
    )


def test_a_round_ends_in_a_promotion(service: Running, first: str, pool: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    before = adapters_of(service)
    assert evolve(service, pool, whole).wait(240) == 0
    version = read_json(whole / "round-1" / "candidate.json")["id"]
    assert service.active == version != first
    assert service.store.info(version).parent == first
    assert len(list(read_jsonl(whole / "round-1" / "train" / "steps.jsonl"))) == 6
    assert (whole / "report.html").stat().st_size > 10_000
    report = read_json(whole / "report.json")
    assert report["vote"]["votes"] == 2 * report["vote"]["exact"] == 2 * report["vote"]["pairs"]
    assert report["swaps"][0]["version"] == version
    assert adapters_of(service) == before


def test_a_round_that_regresses_to_mean_scores_asks_for_them_once_and_for_the_gates_votes_alone(
    service: Running, pool: Path, tmp_path: Path
) -> None:
    assert evolve(service, pool, tmp_path / "run", "--reward", "regression").wait(240) == 0
    folder = tmp_path / "run" / "round-1"
    groups, means = read_json(folder / "pairs.json"), read_json(folder / "mean_scores.json")
    assert set(means) <= {image for group in groups["training"] for image in group}
    assert len(means) > 15 and all(1 <= mean <= 5 for mean in means.values())
    assert len(list(read_jsonl(folder / "votes.jsonl"))) == 6
    assert len(list(read_jsonl(folder / "train" / "steps.jsonl"))) == 6


def test_a_dry_run_prices_a_round_and_leaves_nothing(service: Running, pool: Path, tmp_path: Path) -> None:
    before, price = adapters_of(service), tmp_path / "price.json"
    assert evolve(service, pool, tmp_path / "run", "--dry-run", "--price", str(price)).wait(120) == 0
    told = {line["stage"]: line for line in read_json(price)["lines"]}
    assert told["votes"]["amounts"]["pairs"] == 7 * 6
    assert told["GRPO"]["amounts"] == {"steps": 6, "rollouts": 6 * 4 * 4}
    assert all(line["seconds"] > 0 for line in told.values())
    assert told["candidate"]["bytes"] > 1_000_000
    assert 0 < read_json(price)["hours"] < 1
    assert not (tmp_path / "run").exists()
    assert adapters_of(service) == before


def test_a_run_whose_version_was_replaced_stops_and_says_so(
    service: Running, second: str, pool: Path, tmp_path: Path
) -> None:
    kill_when(evolve(service, pool, tmp_path), tmp_path / "round-1" / "votes.jsonl", 1)
    service.operators.promote(second)
    assert evolve(service, pool, tmp_path).wait(300) == 4
    assert not (tmp_path / "round-1" / "candidate.json").exists()
