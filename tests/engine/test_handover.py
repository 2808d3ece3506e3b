"""A real engine in the role rollout, beside the one that serves: its weights are overwritten, the users' are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from evoquality import ServiceError, encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest
from service.prompts import PROFILES
from tests.engine.checkpoints import adapter, merged
from tests.engine.conftest import add
from tests.engine.pictures import ask_greedily, logprobs, tokens
from tests.engine.running import Running, running
from trainer.files import read_json, read_jsonl
from trainer.training.policy import FullPolicy

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def rollout(
    service: Running, first: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A rollout engine over the serving one's store."""
    service.operators.promote(first)
    log = tmp_path_factory.mktemp("rollout") / "log"
    with running(service.store.root, log, {**environment, "EVOQUALITY_ROLE": "rollout"}) as started:
        yield started


def hand_over(rollout: Running, version: str, name: str) -> Path:
    """The weights of a version of the store, handed over as the trainer does."""
    target = rollout.store.root / "handover" / name
    target.mkdir(parents=True)
    shutil.copy(rollout.store.path(version) / "model.safetensors", target)
    return target


def test_overwritten_weights_answer_as_the_version_does(
    service: Running, rollout: Running, first: str, second: str, images: list[bytes]
):
    before = ask_greedily(rollout, images)
    hand_over(rollout, second, "step-1")
    hand_over(rollout, first, "step-2")
    rollout.operators.overwrite_weights("step-1")
    overwritten = ask_greedily(rollout, images)
    rollout.operators.overwrite_weights("step-2")
    back = ask_greedily(rollout, images)

    assert [answer.version for answer in (before, overwritten, back)] == [first, "step-1", "step-2"]
    assert service.active == first
    assert tokens(before) == tokens(back) == tokens(ask_greedily(service, images)) != tokens(overwritten)
    assert logprobs(before) == pytest.approx(logprobs(back), abs=1e-5)
    service.operators.promote(second)
    assert logprobs(overwritten) == pytest.approx(logprobs(ask_greedily(service, images)), abs=1e-4)


def test_torch_and_engine_agree_once_all_weights_have_moved(rollout: Running, first: str, images: list[bytes]):
    policy = FullPolicy(rollout.store.path(first), PROFILES["plain"])
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in policy.trainable():
            tensor.add_(0.05 * tensor.std() * torch.randn_like(tensor))
    policy.hand_over(rollout.store.root / "handover" / "moved")
    rollout.operators.overwrite_weights("moved")
    prompt = RolloutPrompt(task="score", images=["x"], samples=8, seed=1)
    request = RolloutRequest(images={"x": encode_image(images[0])}, prompts=[prompt], version="moved")
    [result] = rollout.operators.rollouts(request).results
    encoded = policy.network.encode([Image.open(BytesIO(images[0])).convert("RGB")])[0]
    assert encoded.token_ids == result.prompt_token_ids
    with torch.no_grad():
        found = policy.network.logprobs(
            [encoded], [[completion.token_ids for completion in result.completions]]
        ).chosen[0]
    for row, completion in zip(found, result.completions, strict=True):
        assert row[: len(completion.logprobs)].tolist() == pytest.approx(completion.logprobs, abs=1e-4)


def test_refused_weights_leave_the_engine_as_it_was(rollout: Running, second: str, images: list[bytes]):
    before = ask_greedily(rollout, images)
    file = hand_over(rollout, second, "nan") / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).flat[0] = np.nan
    save_file(tensors, file)
    with pytest.raises(ServiceError) as refusal:
        rollout.operators.overwrite_weights("nan")
    assert (refusal.value.problem.status, refusal.value.problem.code) == (422, "version_refused")
    after = ask_greedily(rollout, images)
    assert (after.version, logprobs(after)) == (before.version, pytest.approx(logprobs(before), abs=1e-5))


def test_it_takes_promotions_and_adapters_as_a_serving_engine_does(
    service: Running, rollout: Running, first: str, images: list[bytes], tmp_path: Path
):
    rollout.operators.promote(first)
    path = adapter(rollout.store.path(first), rollout.store.root / "adapters" / "rolled-out", seed=5)
    rollout.operators.load_adapter("rolled-out")
    base, adapted = ask_greedily(rollout, images), ask_greedily(rollout, images, "rolled-out")
    version = add(service.store, merged(service.store.path(first), path, tmp_path / "merged"), first)
    service.operators.promote(version)
    alone = ask_greedily(service, images)
    service.operators.promote(first)
    assert base.version == service.active == first
    assert tokens(base) == tokens(ask_greedily(service, images)) != tokens(adapted) == tokens(alone)
    assert logprobs(adapted) == pytest.approx(logprobs(alone), abs=1e-4)


def test_users_are_sent_elsewhere(rollout: Running, images: list[bytes]):
    with pytest.raises(ServiceError) as refusal:
        rollout.public.score(images[0])
    assert (refusal.value.problem.status, refusal.value.problem.code) == (409, "wrong_role")


def test_two_processes_train_all_weights_while_users_keep_theirs(
    service: Running, rollout: Running, first: str, images: list[bytes], tmp_path: Path
):
    for number, image in enumerate(images[:5]):
        (tmp_path / f"{number}.png").write_bytes(image)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer",
        "--", "evolve", "--pool", str(tmp_path), "--run", str(tmp_path / "run"), "--store", str(service.store.root),
        "--operator", service.operator_url, "--rollout-operator", rollout.operator_url, "--policy", "full",
        "--rounds", "1", "--variants", "3", "--groups", "2", "--group-size", "4", "--held-back-groups", "1",
        "--samples", "4", "--gate-unreadable", "1", "--gate-agreement-loss", "1", "--gate-spread", "0",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    round_folder = tmp_path / "run" / "round-1"
    steps = list(read_jsonl(round_folder / "train" / "steps.jsonl"))
    assert [step["mismatch"] < 1e-3 for step in steps] == [True, True], "the engine sampled from torch's weights"
    version = read_json(round_folder / "candidate.json")["id"]
    assert service.active == version != first
    assert logprobs(ask_greedily(rollout, images)) == pytest.approx(logprobs(ask_greedily(service, images)), abs=1e-4)
