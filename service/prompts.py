"""The two prompts of EvoQuality, and profiles: the answer formats of published checkpoints.

Texts: the authors' model card (EvoQuality, arXiv 2509.25787), and VisualQuality-R1's for its profile.
Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evoquality.contract import Task

ProfileName = Literal["plain", "evoquality", "visualquality-r1"]

THOUGHT_END = "</think>"
MAX_ANSWER_TOKENS = 1024
"""Default limit of an answer, thought included."""

SCORE_QUESTION = (
    "You are doing the image quality assessment task. Here is the question: What is your overall rating "
    "on the quality of this picture? The rating should be a float between 1 and 5, rounded to two decimal "
    "places, with 1 representing very poor quality and 5 representing excellent quality."
)
COMPARE_QUESTION = (
    "You are performing an image quality assessment task. Compare the two images and decide which one has "
    "better perceptual quality. Answer strictly with the index of the better image: 0 if the first image is "
    "better, or 1 if the second image is better."
)
_THINK = (
    " You FIRST think about the reasoning process as an internal monologue and then provide the final answer."
    " The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in "
)


@dataclass(frozen=True, slots=True)
class Profile:
    """The question's suffix and the answer's format for a kind of checkpoint.

    `answer` is a regular expression whose group 1 is the answer, searched for in the text after the last
    `THOUGHT_END`. Where the model thinks, the answer stands between `opening` and `closing`.
    """

    name: ProfileName
    suffix: str
    answer: str
    opening: str = ""
    closing: str = ""

    @property
    def thinks(self) -> bool:
        """True if the model writes its reasoning before the answer."""
        return bool(self.suffix)


PROFILES: dict[str, Profile] = {
    "plain": Profile("plain", "", r"\A\s*(\d+(?:\.\d+)?)\s*\Z"),
    "evoquality": Profile(
        "evoquality", _THINK + r"\boxed{}.", r"\\boxed\{\s*([^{}]*?)\s*\}", opening=r"\boxed{", closing="}"
    ),
    "visualquality-r1": Profile(
        "visualquality-r1",
        _THINK + "<answer> </answer> tags.",
        r"<answer>\s*(.*?)\s*</answer>",
        opening="<answer>",
        closing="</answer>",
    ),
}
_PLAIN_TOKENS: dict[Task, int] = {"score": 6, "compare": 3}


PICTURES: dict[Task, int] = {"score": 1, "compare": 2}
"""How many pictures each question shows."""


def question(task: Task, profile: Profile) -> str:
    """The user's text of `c_score` or `c_compare` in a profile; the images come before it."""
    return (SCORE_QUESTION if task == "score" else COMPARE_QUESTION) + profile.suffix


def chat_messages(task: Task, profile: Profile) -> list[dict[str, object]]:
    """Chat-template messages: one image for `score`, two for `compare`, then the question."""
    images: list[dict[str, str]] = [{"type": "image"}] * PICTURES[task]
    return [{"role": "user", "content": [*images, {"type": "text", "text": question(task, profile)}]}]


def max_tokens(task: Task, profile: Profile, limit: int = MAX_ANSWER_TOKENS) -> int:
    """Longest answer in tokens: `limit` where the model thinks; a plain answer's length is part of its format."""
    return limit if profile.thinks else _PLAIN_TOKENS[task]
