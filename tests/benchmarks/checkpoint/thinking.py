"""`make checkpoint-thinking`: tunes the embedded checkpoint into one that thinks before it answers.

    python -m tests.benchmarks.checkpoint.thinking [--out trainer/demo/thinking] [--steps 500] ...

Pictures, their truth and the confusion of quality with appeal are those of the embedded checkpoint (`recipe.py`), whose
vision tower is kept as it is. Only the language model is tuned, on thoughts with answers in both thinking profiles
(`thoughts.py`). The tokenizer gets a token for each of their words. `trainer.demo.assemble` puts the parts together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from evoquality.contract import Task
from service.prompts import PROFILES, ProfileName, question
from tests.benchmarks.checkpoint.architecture import with_words
from tests.benchmarks.checkpoint.pictures import VARIANTS, Pictures, make_pictures
from tests.benchmarks.checkpoint.recipe import Template, encode, merge, pairs_apart, standardised
from tests.benchmarks.checkpoint.thoughts import Seen, answer, compare_thought, score_thought
from trainer.demo.assemble import EMBEDDED, THINKING
from trainer.demo.truth import KINDS
from trainer.pool.distortions import FAMILIES
from trainer.training.shared_prefix import Prompt, install, shared_states

_TASKS: tuple[Task, ...] = ("score", "compare")
QUALITY_WEIGHT, CONTENT_WEIGHT = 0.5, 0.55
"""More confusion than in the embedded checkpoint, whose two rounds have as much to undo as one of this has."""
MISREAD = 0.1
"""Deviation of an answer around what its thought saw."""
TUNED_CONTENTS = range(7300, 7800)
"""Contents that no other recipe uses."""
THOUGHTS = 4
"""Thoughts a question in a step; they share its prompt."""
_PROFILES: tuple[ProfileName, ...] = ("evoquality", "visualquality-r1")


class Lessons:
    """Questions about pictures, with thoughts and answers to learn."""

    def __init__(self, pictures: Pictures, rng: np.random.Generator) -> None:
        light = standardised(pictures.pixels.mean((1, 2, 3), dtype=np.float32))
        colour = standardised(np.ptp(pictures.pixels, axis=-1).mean((1, 2), dtype=np.float32))
        severity = -np.log(np.clip((pictures.quality - 1) / 4, 1e-3, 1))
        rows = zip(pictures.kinds, severity, light, colour, strict=True)
        self.seen = [Seen(families(kinds), float(s), float(li), float(co)) for kinds, s, li, co in rows]
        self._appeal = standardised(light + colour)
        self._quality = pictures.quality
        self._rng = rng

    def scores(self, count: int, profile: ProfileName) -> tuple[NDArray[np.int64], list[list[str]]]:
        """(count, 1) pictures, and the texts about each."""
        shown = self._rng.integers(0, len(self.seen), (count, 1))
        return shown, [[self._score(int(index), profile) for _ in range(THOUGHTS)] for (index,) in shown]

    def comparisons(self, count: int, profile: ProfileName) -> tuple[NDArray[np.int64], list[list[str]]]:
        """(count, 2) pictures, and the texts about each pair."""
        shown = pairs_apart(self._quality, count, self._rng)
        return shown, [[self._comparison(pair, profile) for _ in range(THOUGHTS)] for pair in shown]

    def _score(self, index: int, profile: ProfileName) -> str:
        seen = self.seen[index].misjudged(self._rng)
        confounded = 3 + QUALITY_WEIGHT * (seen.quality - 3) + CONTENT_WEIGHT * self._appeal[index]
        score = float(np.clip(confounded + self._rng.normal(0, MISREAD), 1, 5))
        return answer(score_thought(seen, score, self._rng), f"{score:.2f}", profile)

    def _comparison(self, pair: NDArray[np.int64], profile: ProfileName) -> str:
        first, second = (self.seen[index].misjudged(self._rng) for index in pair)
        better = int(self._quality[pair[0]] < self._quality[pair[1]])
        return answer(compare_thought((first, second), better, self._rng), str(better), profile)


def families(kinds: NDArray[np.bool_]) -> tuple[str, ...]:
    """The families of a picture's distortion types, each once."""
    there = {KINDS[index] for index in np.flatnonzero(kinds)}
    return tuple(family for family, types in FAMILIES.items() if there & set(types))


def tune(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    pictures: Pictures,
    lessons: Lessons,
    *,
    steps: int,
    learning_rate: float = 1.5e-3,
    batch: int = 12,
    progress: Progress,
) -> None:
    """Tunes the language model in place, on `batch` pictures and as many pairs a step."""
    language_model = model.model.language_model
    install(language_model)
    encoded = encode(model.model.visual, pictures)
    with torch.no_grad():
        visual = torch.cat([merge(model.model.visual, part.float()) for part in encoded.split(256)])
    templates = {
        (task, profile): Template.of(model, processor, task, profile=profile)
        for task in _TASKS
        for profile in _PROFILES
    }
    optimizer = torch.optim.AdamW(language_model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    bar = progress.add_task("thoughts", total=steps)
    for step in range(1, steps + 1):
        one, other = _PROFILES[step % 2], _PROFILES[1 - step % 2]
        losses = []
        for task, profile, (shown, texts) in (
            ("score", one, lessons.scores(batch, one)),
            ("compare", other, lessons.comparisons(batch, other)),
        ):
            tokens = [[processor.tokenizer(text + "<|im_end|>")["input_ids"] for text in row] for row in texts]
            seen = visual[torch.from_numpy(shown)].flatten(1, 2)
            losses.append(answer_loss(model, templates[task, profile], seen, tokens))
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(language_model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.advance(bar)
        if step % 25 == 0:
            progress.console.print(f"step {step}: score {losses[0].item():.3f}, compare {losses[1].item():.3f}")


def answer_loss(
    model: Qwen2_5_VLForConditionalGeneration, template: Template, visual: Tensor, answers: list[list[list[int]]]
) -> Tensor:
    """Mean cross entropy of K answers to each of B questions about (B, V, width) visual tokens."""
    rows = pad_sequence([torch.tensor(answer) for row in answers for answer in row], True, -1)
    tokens = rows.unflatten(0, (len(answers), -1))
    embeddings, ids = template.embeddings(model, visual), template.prompt.tolist()
    prompts = [Prompt(ids, each, template.positions[:, 0]) for each in embeddings]
    states, places = shared_states(model.model.language_model, prompts, tokens.clamp(0), tokens >= 0)
    there = tokens >= 0
    return functional.cross_entropy(model.lm_head(states)[places[there]].float(), tokens[there])


def said(lessons: Lessons) -> Iterator[str]:
    """Text with every word of the thinking profiles' questions and answers."""
    for profile in _PROFILES:
        yield from (question(task, PROFILES[profile]) for task in _TASKS)
        for _, texts in (lessons.scores(500, profile), lessons.comparisons(500, profile)):
            yield from (text for row in texts for text in row)


def main(
    out: Annotated[Path, typer.Option(help="Output folder.")] = THINKING,
    steps: Annotated[int, typer.Option(help="Steps of 12 pictures and 12 pairs, with 4 thoughts each.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of pictures and thoughts.")] = 0,
) -> None:
    """Tunes the thinking checkpoint."""
    processor = Qwen2_5_VLProcessor.from_pretrained(EMBEDDED, trust_remote_code=False)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(EMBEDDED, dtype="float32", trust_remote_code=False)
    print(f"making {len(TUNED_CONTENTS) * VARIANTS} pictures ...")
    pictures = make_pictures("train", TUNED_CONTENTS, os.cpu_count() or 1)
    lessons = Lessons(pictures, np.random.default_rng(seed))
    processor.tokenizer = with_words(processor.tokenizer, said(lessons))
    torch.manual_seed(seed)
    model.resize_token_embeddings(len(processor.tokenizer))
    with Progress() as progress:
        tune(model, processor, pictures, lessons, steps=steps, progress=progress)
    out.mkdir(exist_ok=True)
    tuned = {
        name.replace("model.language_model.", "model."): weight.half().contiguous()
        for name, weight in model.state_dict().items()
        if name.startswith("model.language_model.")
    }
    save_file(tuned, out / "language_model.safetensors")
    processor.tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
