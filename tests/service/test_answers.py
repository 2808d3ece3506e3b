"""Readable answers, and unreadable ones."""

from __future__ import annotations

import pytest

from service.answers import parse_score, parse_vote
from service.prompts import PROFILES, chat_messages, question

PLAIN, THINKING, TAGGED = (PROFILES[name] for name in ("plain", "evoquality", "visualquality-r1"))


@pytest.mark.parametrize(("text", "score"), [("3.42", 3.42), (" 1\n", 1.0), ("5.00", 5.0), ("2.5", 2.5)])
def test_a_plain_number_between_1_and_5_is_a_score(text: str, score: float):
    assert parse_score(text, PLAIN) == score


@pytest.mark.parametrize(
    "text", ["", "0.99", "5.01", "3.4.2", "3,4", "about 3", "3 4", "-3", "+3", "nan", "inf", "1e0", ".5", "٣", "3."]
)
def test_anything_else_is_unreadable(text: str):
    assert parse_score(text, PLAIN) is None


def test_a_vote_is_the_index_of_an_image_and_nothing_else():
    assert [parse_vote(text, PLAIN) for text in ("0", "1", "2", "", "01", "first")] == [0, 1, None, None, None, None]


def test_thoughts_are_not_answers():
    assert parse_score(r"<think>\boxed{1.00} no</think> \boxed{3.42}", THINKING) == 3.42
    assert parse_score(r"<think>\boxed{1.00} and so on", PROFILES["visualquality-r1"]) is None
    assert parse_score("<think>4</think><answer>3.42</answer>", TAGGED) == 3.42
    assert parse_vote("<answer> 1 </answer>", TAGGED) == 1


def test_the_last_answer_counts():
    assert parse_score(r"\boxed{2.00} or rather \boxed{3.00}", THINKING) == 3.0


@pytest.mark.parametrize(("task", "images"), [("score", 1), ("compare", 2)])
def test_a_prompt_shows_its_images_and_then_asks(task, images: int):
    (message,) = chat_messages(task, PLAIN)
    assert [part["type"] for part in message["content"]] == ["image"] * images + ["text"]
    assert message["content"][-1]["text"] == question(task, PLAIN)
