"""What both trainers are given: the embedded model at 448 px, groups of 16 pictures, and one file of labels.

The embedded checkpoint was made for 112 px and answers hardly anything readable at 448, where there would be no
reward to learn from; so a copy of it is first taught, for a few steps, to answer with a number.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer

from service.prompts import PROFILES
from trainer.demo.contents import Split, content
from trainer.files import read_json, write_json, write_jsonl
from trainer.pool.distortions import TYPES, distort
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.training.logprobs import Answers
from trainer.training.policy import LoraPolicy
from trainer.training.shared_prefix import Prompt
from trainer.voting.groups import Group
from trainer.voting.votes import Pair, PairVotes, labels_of, load

EMBEDDED = Path("trainer/demo/checkpoint")
PROFILE = PROFILES["plain"]
SIDE = 448
IMAGES, SAMPLES, RANK = 16, 8, 32
BETA, GAMMA, LEARNING_RATE, CLIP_LOW, CLIP_HIGH = 0.02, 0.01, 1e-3, 0.2, 0.28
LEVELS = 5
TAUGHT, LESSONS, LESSON = 24, 20, 4
"""Pictures that the model is taught to answer on; steps; pictures a step."""


@dataclass(frozen=True)
class Setting:
    """A folder with the checkpoint and, for the trainer's own command, a run that has cast its votes."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The embedded checkpoint, with pictures of up to 448 x 448."""
        return self.folder / "checkpoint"

    @property
    def pictures(self) -> Path:
        """PNG files."""
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
        """The groups to train on, one a step."""
        return list(read_json(self.run / "round-1" / "pairs.json")["training"])

    @property
    def labels(self) -> dict[Pair, float]:
        """p* of the pairs in groups, both ways."""
        return labels_of(load(self.run / "round-1" / "votes.jsonl"))


def prepare(folder: Path, checkpoint: Path, groups: int, seed: int) -> Setting:
    """Pictures that no engine has seen yet, in `groups` groups; of two pictures the less distorted one is better."""
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
    """A copy that has learned to answer pictures of 448 px with scores that fall with the level of distortion."""
    rng, tokenizer = np.random.default_rng(0), AutoTokenizer.from_pretrained(checkpoint)
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
