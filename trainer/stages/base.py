"""The base's first answers, asked for before any vote: does it speak its profile? `answers.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice

from evoquality.contract import RolloutPrompt, Task
from service.answers import parse_score, parse_vote
from service.prompts import PROFILES, Profile
from trainer.errors import WrongProfile
from trainer.files import built, read_json, write_json
from trainer.pool.pool import Pool
from trainer.stages.context import RoundContext
from trainer.voting.groups import Group

_PICTURES = 20
_SHOWN = 160
"""Characters of an example."""
_READ: Mapping[Task, Callable[[str, Profile], float | None]] = {"score": parse_score, "compare": parse_vote}
_ABOUT: Mapping[Task, str] = {"score": "pictures", "compare": "pairs of pictures"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the base."""

    task: Task
    text: str
    finish_reason: str


def check_answers(context: RoundContext, images: Pool, groups: Sequence[Group]) -> None:
    """Asks for a score of each of a few pictures, and for a vote on each with the next, unless votes were cast already.

    Raises:
        WrongProfile: more of either than `base_unreadable` are unreadable.
    """
    if (context.folder / "votes.done").exists():
        return
    file = context.folder / "answers.json"
    if not file.exists():
        shown = list(islice(dict.fromkeys(chain.from_iterable(groups)), _PICTURES))
        with context.stage("first answers", total=2 * len(shown), unit="answers") as advance:
            answers = _asked(context, images, shown)
            advance(len(answers))
        write_json(file, [asdict(answer) for answer in answers])
    answers = [built(Answer, row) for row in read_json(file)]
    for task in _READ:
        _check(context, task, [answer for answer in answers if answer.task == task])


def _asked(context: RoundContext, images: Pool, shown: Sequence[str]) -> list[Answer]:
    prompts = [RolloutPrompt(task="score", images=[image], samples=1, seed=context.seed) for image in shown]
    prompts += [
        RolloutPrompt(task="compare", images=[one, other], samples=1, seed=context.seed)
        for one, other in zip(shown, [*shown[1:], shown[0]], strict=True)
    ]
    found = context.workers.rollouts(prompts, images, version=context.base)
    return [
        Answer(prompt.task, answer.text, answer.finish_reason)
        for prompt, result in zip(prompts, found, strict=True)
        for answer in result.completions
    ]


def _check(context: RoundContext, task: Task, answers: Sequence[Answer]) -> None:
    unreadable = [answer for answer in answers if _READ[task](answer.text, context.profile) is None]
    if len(unreadable) <= context.settings.base_unreadable * len(answers):
        return
    cut = sum(answer.finish_reason == "length" for answer in unreadable)
    example = next((answer.text for answer in unreadable if answer.text.strip()), "")
    raise WrongProfile(
        f"{context.base} does not answer in the format of its profile, {context.profile.name}: {len(unreadable)} of "
        f"its first {len(answers)} answers about {_ABOUT[task]} are unreadable ({len(unreadable) / len(answers):.0%}; "
        f"--base-unreadable allows {context.settings.base_unreadable:.0%}), {cut} of them cut off by the token limit; "
        f"one says {_shortened(example)!r}; {_remedy(task, unreadable)}"
    )


def _remedy(task: Task, unreadable: Sequence[Answer]) -> str:
    """What to do, by the profiles that would read most of these answers."""
    read = {
        name: sum(_READ[task](answer.text, profile) is not None for answer in unreadable)
        for name, profile in PROFILES.items()
    }
    readers = [f"{name} would read {count} of them" for name, count in read.items() if count > len(unreadable) / 2]
    again = "serve the checkpoint with that --profile from a new --store, and begin a new run"
    if readers:
        return f"the profile {', '.join(readers)}: {again}"
    if sum(answer.text.lstrip().startswith("<think>") for answer in unreadable) > len(unreadable) / 2:
        thinking = " or ".join(name for name, profile in PROFILES.items() if profile.thinks)
        return f"they begin with thoughts, for which only the profiles {thinking} have room: {again}"
    return (
        f"no profile would read them ({', '.join(PROFILES)}): begin a new run with a --base that was tuned to answer "
        "in the format of one"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
