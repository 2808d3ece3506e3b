"""A learner's three steps on random pictures and answers, alone or as `torchrun -m tests.trainer.learning ...`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin

from evoquality.contract import Completion, InfoResponse, RolloutResult
from service.prompts import chat_messages
from tests.trainer.vision_models import PLAIN, picture
from trainer.promotion import kept
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.training.fit import MEASURING, Fit, Load, fit
from trainer.training.learner import Learner, begin
from trainer.training.self_check import SHARED

SIZES = [(84, 112), (112, 56), (112, 112), (56, 112), (84, 84)]
"""Of the pictures: five among two processes, with prompts of different lengths."""
ANSWERS = 3
ENGINE = InfoResponse.model_construct(min_pixels=None, max_pixels=None, dtype="float32")
"""It scales pictures as the checkpoint says."""


def main(folder: Path, name: str, other: str, kinds: list[str], dtype: str = "float32") -> None:
    """As many processes as torchrun started."""
    distributed.run_on_main("cpu", dtype, lambda: [lead(folder, kind, name, other, dtype) for kind in kinds])


def lead(folder: Path, kind: str, name: str, other: str, dtype: str) -> None:
    """Two steps, a checkpoint, a step that is not finite, a third step; then the third again from the `other` run's
    checkpoint if there is one. Leaves <kind>-<name>.pt, -end.pt and -resumed.pt, what was handed over, and the steps'
    metrics."""
    begun = folder / "checkpoint", PLAIN, settings(folder, kind, dtype), 0, ENGINE
    path = folder / f"{kind}-{name}"
    Path(f"{path}-fit.json").write_text(json.dumps(asdict(measured(folder, kind, dtype))))
    with distributed.built(begin, *begun) as learner:
        assert learner.self_check(picture(0, *SIZES[0])).way == SHARED
        metrics = [step(learner, number, folder) for number in range(2)]
        learner.save(path.with_suffix(".pt"), 2, None)
        assert not np.isfinite(step(learner, 2, folder, float("-inf"))["norm"])
        metrics.append(step(learner, 2, folder))
        learner.save(Path(f"{path}-end.pt"), 3, None)
        learner.hand_over(Path(f"{path}-handed-over"))
        learner.save_checkpoint(Path(f"{path}-checkpoint"))
        Path(f"{path}.json").write_text(json.dumps(metrics))
        compared = learner.compare(Path(f"{path}-checkpoint"), *asked(0, folder))
        figures = {"apart": kept.apart(compared), "kept": kept.share_kept(compared)[0]}
        Path(f"{path}-compared.json").write_text(json.dumps(figures))
    if (folder / f"{kind}-{other}.pt").exists():
        with distributed.built(begin, *begun) as learner:
            assert learner.resume(folder / f"{kind}-{other}.pt") == (2, None)
            step(learner, 2, folder)
            learner.save(Path(f"{path}-resumed.pt"), 3, None)


def measured(folder: Path, kind: str, dtype: str) -> Fit:
    """How a step of three pictures on each process fits the memory."""
    asked = settings(folder, kind, dtype).model_copy(update={"tokens_per_pass": None, "gradient_checkpointing": "on"})
    begun = folder / "checkpoint", PLAIN, asked.model_copy(update=MEASURING), 0, ENGINE
    with distributed.built(begin, *begun) as learner:
        return fit(learner, Load([picture(seed, 112, 112) for seed in range(3)], samples=ANSWERS, answer=6), asked)


def settings(folder: Path, kind: str, dtype: str) -> EvolveSettings:
    return EvolveSettings(
        pool=folder, run=folder, policy=kind, rollout_operator="http://nowhere", rank=8, tokens_per_pass=150,
        learning_rate=1e-3, dtype=dtype,
    )  # fmt: skip


def step(learner: Learner, number: int, folder: Path, first_logprob: float = -6.0) -> dict[str, float]:
    shown, rollouts = asked(number, folder)
    rollouts[0].completions[0].logprobs[0] = first_logprob
    advantage = np.random.default_rng(100 + number).normal(size=(len(SIZES), ANSWERS))
    metrics = learner.accumulate(shown, rollouts, advantage)
    return {**metrics, "norm": learner.step(1 - number / 3)}


def asked(number: int, folder: Path) -> tuple[dict[str, Image.Image], list[RolloutResult]]:
    """A step's pictures and answers."""
    random = np.random.default_rng(number)
    shown = {str(index): picture(10 * number + index, *size) for index, size in enumerate(SIZES)}
    return shown, [rollout(image, random, folder / "checkpoint") for image in shown.values()]


def rollout(image: Image.Image, random: np.random.Generator, checkpoint: Path) -> RolloutResult:
    """Answers that nobody sampled, to the prompt as the engine would see it."""
    processor = processor_of(checkpoint)
    text = processor.apply_chat_template(chat_messages("score", PLAIN), add_generation_prompt=True, tokenize=False)
    prompt = processor(text=[text], images=[image])["input_ids"][0]
    answers = [random.integers(280, 400, random.integers(1, 6)).tolist() for _ in range(ANSWERS)]
    completions = [
        Completion(text="", token_ids=answer, logprobs=[-6.0] * len(answer), finish_reason="stop") for answer in answers
    ]
    return RolloutResult(prompt_token_ids=list(prompt), completions=completions)


@cache
def processor_of(checkpoint: Path) -> ProcessorMixin:
    return AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
