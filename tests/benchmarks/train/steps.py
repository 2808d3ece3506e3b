"""Whole GRPO steps, rollouts included: this trainer's command against a real service, and TRL's GRPOTrainer.

Both get two cores (engine and trainer one each, TRL both), the same model at 448 px, groups of 16 pictures and labels.
The embedded checkpoint was made for 112 px and gives hardly a readable answer at 448, hence no reward; so a copy is
first trained for a few steps to answer with a number.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer

from service.prompts import PROFILES
from tests.engine.running import Running, running
from trainer.demo.contents import Split, content
from trainer.evaluation.benchmarks.load import load
from trainer.files import read_json, read_jsonl, write_json, write_jsonl
from trainer.pool.distortions import TYPES, distort
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.training.logprobs import Answers
from trainer.training.policy import LoraPolicy
from trainer.training.shared_prefix import Prompt
from trainer.voting.groups import Group
from trainer.voting.votes import Pair, PairVotes, labels_of

EMBEDDED = Path("trainer/demo/checkpoint")
PROFILE = PROFILES["plain"]
SIDE = 448
IMAGES, SAMPLES, RANK = 16, 8, 32
BETA, GAMMA, LEARNING_RATE, CLIP_LOW, CLIP_HIGH = 0.02, 0.01, 1e-3, 0.2, 0.28
LEVELS = 5
TAUGHT, LESSONS, LESSON = 24, 20, 4
"""Pictures that the model learns to answer on; steps; pictures per step."""
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Setting:
    """A folder with the checkpoint and, for this trainer's command, a run whose votes are cast."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The embedded checkpoint for pictures of up to 448 x 448."""
        return self.folder / "checkpoint"

    @property
    def pictures(self) -> Path:
        """Folder of PNG files."""
        return self.folder / "pictures"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    @property
    def pool(self) -> Pool:
        """The pictures by content."""
        return Pool.load(self.run / "round-1" / "pool.jsonl")

    @property
    def groups(self) -> list[Group]:
        """The training groups, one per step."""
        return list(read_json(self.run / "round-1" / "pairs.json")["training"])

    @property
    def labels(self) -> dict[Pair, float]:
        """p* of the pairs in groups, in both orders."""
        return labels_of(load(self.run / "round-1" / "votes.jsonl"))


def prepare(folder: Path, checkpoint: Path, groups: int, seed: int) -> Setting:
    """Makes fresh pictures in `groups` groups, with labels: of two pictures the less distorted one is better."""
    setting = Setting(folder)
    shutil.copytree(checkpoint, setting.checkpoint)
    setting.pictures.mkdir(parents=True)
    images = [_saved(picture, setting.pictures, level) for picture, level in _pictures("pool", groups * IMAGES, seed)]
    levels = {image.id: int(Path(image.path).stem.split("-")[-1]) for image in images}
    ids = list(levels)
    chosen = [ids[start : start + IMAGES] for start in range(0, len(ids), IMAGES)]
    votes = [_vote(pair, levels) for group in chosen for pair in combinations(sorted(group), 2)]
    cast = setting.run / "round-1"
    write_jsonl(cast / "pool.jsonl", map(asdict, images))
    write_json(cast / "pairs.json", {"training": chosen, "held_back": chosen[:1]})
    write_jsonl(cast / "votes.jsonl", map(asdict, votes))
    write_json(cast / "votes.done", {"pairs": len(votes)})
    return setting


def large(folder: Path) -> Path:
    """A copy of the embedded checkpoint whose processor takes 448 x 448 pixels."""
    shutil.copytree(EMBEDDED, folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["size"]["longest_edge"] = SIDE * SIDE
    file.write_text(json.dumps(config, indent=2))
    return folder


def readable(checkpoint: Path, folder: Path) -> Path:
    """A copy trained to answer pictures of 448 px with scores that fall with the level of distortion."""
    rng, tokenizer = np.random.default_rng(0), AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    policy = LoraPolicy(checkpoint, PROFILE, rank=64, seed=0)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-3)
    lessons: list[tuple[Prompt, int]] = [
        (policy.network.encode([picture])[0], level) for picture, level in _pictures("train", TAUGHT, seed=0)
    ]
    for _ in range(LESSONS):
        chosen = [lessons[place] for place in rng.choice(TAUGHT, LESSON, replace=False)]
        answers = [_answers(level, tokenizer, rng) for _, level in chosen]
        found = policy.network.logprobs([prompt for prompt, _ in chosen], answers)
        optimizer.zero_grad()
        torch.autograd.backward(-found.chosen.sum() / found.mask.sum())
        policy.gradient_norm(1.0)
        optimizer.step()
    folder.mkdir()
    policy.save_checkpoint(folder)
    return folder


def _answers(level: int, tokenizer: AutoTokenizer, rng: np.random.Generator) -> Answers:
    scores = np.clip(rng.normal(5 - 0.7 * level, 0.5, 16), 1, 5)
    return [[*tokenizer.encode(f"{score:.2f}"), tokenizer.eos_token_id] for score in scores]


def _pictures(split: Split, count: int, seed: int) -> Iterator[tuple[Image.Image, int]]:
    """Pictures of 448 x 448 and their levels of distortion."""
    rng = np.random.default_rng((seed, SIDE))
    for index in range(count):
        level = 1 + index % LEVELS
        picture = content(split, seed * count + index).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield distort(picture, str(rng.choice(list(TYPES))), level, rng), level


def _saved(picture: Image.Image, folder: Path, level: int) -> PoolImage:
    path = folder / f"{len(list(folder.iterdir())):04d}-{level}.png"
    picture.save(path, compress_level=1)
    name = content_id(path.read_bytes())
    return PoolImage(name, str(path.absolute()), name)


def _vote(pair: Pair, levels: dict[str, int]) -> PairVotes:
    first, second = pair
    sign = int(np.sign(levels[second] - levels[first]))
    return PairVotes(first, second, [1 + sign, 1 - sign], [1 + sign, 1 - sign], 0, "labels")


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds and logged figures of each step in steady state."""

    seconds: list[float]
    logged: list[dict[str, Any]]


@contextmanager
def service(checkpoint: Path, folder: Path, **settings: str) -> Iterator[Running]:
    """The real service on a checkpoint, with `settings` as environment variables."""
    env = {f"EVOQUALITY_{name.upper()}": value for name, value in settings.items()}
    with running(
        folder / "store", folder / "service.log", {**QUIET, **env, "EVOQUALITY_CHECKPOINT": str(checkpoint)}
    ) as served:
        yield served


def serving_large(checkpoint: Path, folder: Path) -> AbstractContextManager[Running]:
    """The service for pictures of 448 px."""
    return service(checkpoint, folder, max_pixels=str(SIDE * SIDE), max_model_len="1024")


def ours(setting: Setting, served: Running) -> Steps:
    """`evoquality-trainer evolve` with default settings, on the setting's votes, up to its last step but one.

    A step's seconds run from the previous line in steps.jsonl to its own. The first two steps and the last are left
    out, since in steady state the rollouts of the next step overlap.
    """
    command = [
        str(Path(sys.executable).with_name("evoquality-trainer")),
        "evolve",
        f"--pool={setting.pictures}",
        f"--run={setting.run}",
        f"--store={served.store.root}",
        f"--operator={served.operator_url}",
        "--rounds=1",
        f"--group-size={IMAGES}",
        f"--samples={SAMPLES}",
        f"--rank={RANK}",
        f"--beta={BETA}",
        f"--gamma={GAMMA}",
        f"--learning-rate={LEARNING_RATE}",
        f"--clip-low={CLIP_LOW}",
        f"--clip-high={CLIP_HIGH}",
    ]
    log, wanted = setting.run / "round-1" / "train" / "steps.jsonl", len(setting.groups) - 1
    ended: list[Any] = []
    with _process(command, setting.folder / "ours.log", threads=1) as process:
        while len(ended) < wanted and process.poll() is None:
            lines = log.read_text().count("\n") if log.exists() else 0
            ended += [time.perf_counter()] * (lines - len(ended))
            time.sleep(0.02)
    if len(ended) < wanted:
        raise RuntimeError(f"the trainer ended early:\n{(setting.folder / 'ours.log').read_text()[-3000:]}")
    seconds = [after - before for before, after in pairwise(ended)]
    return Steps(seconds[1:], list(read_jsonl(log))[2:wanted])


def trl(setting: Setting) -> Steps:
    """TRL's trainer, without its first step."""
    out = setting.folder / "trl.jsonl"
    command = [sys.executable, "-m", "tests.benchmarks.train.trl_trainer", str(setting.folder), str(out)]
    with _process(command, setting.folder / "trl.log", threads=len(os.sched_getaffinity(0))) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"TRL ended with {process.returncode}:\n{(setting.folder / 'trl.log').read_text()[-3000:]}")
    rows = list(read_jsonl(out))[1:]
    return Steps([row["seconds"] for row in rows], rows)


@contextmanager
def _process(command: list[str], log: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block ends."""
    env = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(threads)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(300)
