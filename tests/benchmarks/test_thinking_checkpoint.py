"""The thinking checkpoint: its lessons, its tokenizer, its assembly from the embedded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from service.answers import parse_score, parse_vote
from service.prompts import PROFILES, ProfileName, chat_messages, question
from tests.benchmarks.checkpoint.pictures import Pictures, make_pictures
from tests.benchmarks.checkpoint.recipe import Template, encode, merge
from tests.benchmarks.checkpoint.thinking import THOUGHTS, Lessons, answer_loss
from trainer.demo.assemble import EMBEDDED, THINKING, thinking_checkpoint
from trainer.training.shared_prefix import install

THINKS: list[ProfileName] = ["evoquality", "visualquality-r1"]


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinking_checkpoint(tmp_path_factory.mktemp("thinking") / "checkpoint")


@pytest.fixture(scope="module")
def processor(assembled: Path) -> Qwen2_5_VLProcessor:
    return Qwen2_5_VLProcessor.from_pretrained(assembled, trust_remote_code=False)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures("train", range(7300, 7302), 1)


@pytest.fixture
def lessons(pictures: Pictures) -> Lessons:
    return Lessons(pictures, np.random.default_rng(0))


def test_it_is_small_and_shares_the_vision_tower(assembled: Path):
    assert sum(file.stat().st_size for file in THINKING.iterdir()) < 4e6
    ours, embedded = (load_file(folder / "model.safetensors") for folder in (assembled, EMBEDDED))
    changed = {
        name for name in embedded if ours[name].shape != embedded[name].shape or (ours[name] != embedded[name]).any()
    }
    assert ours.keys() == embedded.keys()
    assert changed == {name for name in embedded if not name.startswith("visual.")}


def test_it_is_the_same_every_time(assembled: Path, tmp_path: Path):
    again = thinking_checkpoint(tmp_path / "again")
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in (assembled, again)]
    assert files[0] == files[1]
    with pytest.raises(FileExistsError):
        thinking_checkpoint(again)


@pytest.mark.parametrize("profile", THINKS)
def test_lessons_are_readable_and_differ_in_length(lessons: Lessons, processor, profile: ProfileName):
    (_, scores), (_, votes) = lessons.scores(40, profile), lessons.comparisons(40, profile)
    assert all(parse_score(text, PROFILES[profile]) is not None for row in scores for text in row)
    assert all(parse_vote(text, PROFILES[profile]) is not None for row in votes for text in row)
    lengths = [len(processor.tokenizer(text)["input_ids"]) for rows in (scores, votes) for row in rows for text in row]
    assert min(lengths) >= 8 and max(lengths) <= 72 and np.std(lengths) > 5


def test_lessons_name_the_better_picture(lessons: Lessons, pictures: Pictures):
    shown, texts = lessons.comparisons(40, "evoquality")
    for (first, second), row in zip(shown, texts, strict=True):
        better = "0" if pictures.quality[first] > pictures.quality[second] else "1"
        assert {text.partition("boxed")[2] for text in row} == {f"{{{better}}}"}


@pytest.mark.parametrize("profile", THINKS)
def test_each_word_of_a_lesson_is_a_token_and_numbers_are_spelt(lessons: Lessons, processor, profile: ProfileName):
    for row in (*lessons.scores(40, profile)[1], *lessons.comparisons(40, profile)[1]):
        for text in row:
            thought, _, said = text.partition(" </think> ")
            mark, digits = (" \\boxed{", said[7:-1]) if profile == "evoquality" else (" <answer>", said[8:-9])
            tokens = [processor.tokenizer.decode(token) for token in processor.tokenizer(text)["input_ids"]]
            end = "}" if profile == "evoquality" else "</answer>"
            assert "".join(tokens) == text
            assert tokens == [
                word if number == 0 else f" {word}" for number, word in enumerate(f"{thought} </think>".split())
            ] + [mark, *digits, end]


def test_plain_questions_have_the_embedded_checkpoints_tokens(processor):
    embedded = Qwen2_5_VLProcessor.from_pretrained(EMBEDDED, trust_remote_code=False).tokenizer
    for text in (question("score", PROFILES["plain"]), question("compare", PROFILES["plain"]), "3.42", "user\n"):
        assert processor.tokenizer(text)["input_ids"] == embedded(text)["input_ids"]


@pytest.mark.parametrize("task", ["score", "compare"])
def test_the_loss_is_that_of_the_checkpoints_own_forward_pass(assembled: Path, processor, pictures, lessons, task):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(assembled, dtype="float32", trust_remote_code=False)
    shown, texts = (lessons.scores if task == "score" else lessons.comparisons)(2, "evoquality")
    template = Template.of(model, processor, task, profile="evoquality")
    install(model.model.language_model)
    tokens = [[processor.tokenizer(text)["input_ids"] for text in row] for row in texts]
    prompt = processor.apply_chat_template(
        chat_messages(task, PROFILES["evoquality"]), add_generation_prompt=True, tokenize=False
    )
    plain: list[torch.Tensor] = []
    with torch.no_grad():
        for row, answers in zip(shown, texts, strict=True):
            for text in answers:
                files = [Image.fromarray(pictures.pixels[index]) for index in row]
                inputs = processor(text=[prompt + text], images=files, return_tensors="pt")
                length = len(processor.tokenizer(text)["input_ids"])
                logits = model(**inputs).logits[0, -length - 1 : -1]
                plain.append(functional.cross_entropy(logits, inputs["input_ids"][0, -length:], reduction="none"))
        seen = merge(model.model.visual, encode(model.model.visual, pictures).float()).detach()
        found = answer_loss(model, template, seen[torch.from_numpy(shown)].flatten(1, 2), tokens)
    assert len(plain) == 2 * THOUGHTS
    assert float(found) == pytest.approx(float(torch.cat(plain).mean()), abs=0.02)  # the tower ran in bfloat16
