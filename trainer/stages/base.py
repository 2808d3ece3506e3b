"""The base's first answers, asked for before any vote: does it speak its profile? `answers.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice

from evoquality import ServiceError
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
    """One answer of the base, asked in a profile."""

    profile: str
    task: Task
    text: str
    finish_reason: str

    @property
    def readable(self) -> bool:
        """True if its profile reads it."""
        return _READ[self.task](self.text, PROFILES[self.profile]) is not None


def check_answers(context: RoundContext, images: Pool, groups: Sequence[Group]) -> None:
    """Asks for a score of each of a few pictures, and for a vote on each with the next, unless votes were cast already.

    Raises:
        WrongProfile: more of either than `base_unreadable` are unreadable; it was then asked in the other profiles too.
    """
    if (context.folder / "votes.done").exists():
        return
    shown = list(islice(dict.fromkeys(chain.from_iterable(groups)), _PICTURES))
    own = context.profile.name
    known = _answers(context, images, shown, [own])
    for task in _READ:
        unreadable = [answer for answer in known if answer.task == task and not answer.readable]
        asked = sum(answer.task == task for answer in known if answer.profile == own)
        if len(unreadable) > context.settings.base_unreadable * asked:
            others = _answers(context, images, shown, [name for name in PROFILES if name != own])
            raise WrongProfile(_reason(context, unreadable, asked, [one for one in others if one.task == task]))


def _answers(context: RoundContext, images: Pool, shown: Sequence[str], profiles: Sequence[str]) -> list[Answer]:
    """The answers in these profiles, each asked for once in a round. A profile whose questions the service refuses, for
    example because its answers do not fit, has none."""
    file = context.folder / "answers.json"
    rows = read_json(file) if file.exists() else {}
    for name in profiles:
        if name not in rows:
            with context.stage(f"first answers, {name}", total=2 * len(shown), unit="answers") as advance:
                rows[name] = [asdict(answer) for answer in _asked(context, images, shown, name, advance)]
            write_json(file, rows)
    return [built(Answer, row) for name in profiles for row in rows[name]]


def _asked(
    context: RoundContext, images: Pool, shown: Sequence[str], profile: str, advance: Callable[[int], None]
) -> list[Answer]:
    ask = partial(RolloutPrompt, samples=1, seed=context.seed, profile=profile)
    prompts = [ask(task="score", images=[image]) for image in shown]
    prompts += [
        ask(task="compare", images=[one, other]) for one, other in zip(shown, [*shown[1:], shown[0]], strict=True)
    ]
    try:
        found = context.workers.rollouts(prompts, images, version=context.base, advance=advance)
    except ServiceError:
        if profile == context.profile.name:
            raise
        return []
    return [
        Answer(profile, prompt.task, answer.text, answer.finish_reason)
        for prompt, result in zip(prompts, found, strict=True)
        for answer in result.completions
    ]


def _reason(context: RoundContext, unreadable: Sequence[Answer], asked: int, others: Sequence[Answer]) -> str:
    cut = sum(answer.finish_reason == "length" for answer in unreadable)
    example = next((answer.text for answer in unreadable if answer.text.strip()), "")
    return (
        f"{context.base} does not answer in the format of its profile, {context.profile.name}: {len(unreadable)} of "
        f"its first {asked} answers about {_ABOUT[unreadable[0].task]} are unreadable ({len(unreadable) / asked:.0%}; "
        f"--base-unreadable allows {context.settings.base_unreadable:.0%}), {cut} of them cut off by the token limit; "
        f"one says {_shortened(example)!r}; {_remedy(others)}"
    )


def _remedy(others: Sequence[Answer]) -> str:
    """What to do, by the other profiles in which most answers are readable."""
    counts = Counter(answer.profile for answer in others)
    read = Counter(answer.profile for answer in others if answer.readable)
    readers = [name for name in counts if read[name] > counts[name] / 2]
    told = ", ".join(f"{read[name]} of {counts[name]} are readable as {name}" for name in counts)
    if readers:
        return (
            f"asked in the other profiles, {told}: serve the checkpoint with --profile {' or '.join(readers)} from a "
            "new --store, and begin a new run"
        )
    return (
        f"asked in the other profiles, {told or 'which the service refused, none is'}: begin a new run with a --base "
        "that was tuned to answer in the format of a profile"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
