"""The pixels that the model sees of a picture, so that question, pictures and answer fit into the engine's context.

A processor of the Qwen-VL family scales a picture to sides that are multiples of a visual token's, and to an area
within limits. Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from evoquality.contract import Task
from service.configuration.settings import Settings
from service.errors import UserError
from service.images.picture import MAX_SIDE_RATIO
from service.prompts import PICTURES, Profile, max_tokens

log = logging.getLogger(__name__)
# vLLM names the limits as transformers did before.
warnings.filterwarnings("ignore", message="Passing `min_pixels` and `max_pixels`", category=FutureWarning)


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """Smaller pictures are scaled up to `smallest` pixels, larger ones down to `largest`; a visual token shows a square
    of `side` pixels."""

    smallest: int
    largest: int
    side: int

    def __str__(self) -> str:
        return f"{self.smallest} to {self.largest} pixels"

    def options(self) -> dict[str, int]:
        """The options with which an image processor keeps to these limits."""
        return {"min_pixels": self.smallest, "max_pixels": self.largest}

    def most_tokens(self) -> int:
        """Visual tokens of a picture at most, at least: of one as long as may be, whose short side takes one token."""
        scaled_down = max(self.largest / self.side**2, math.sqrt(self.largest * MAX_SIDE_RATIO) / self.side)
        sides = (math.sqrt(self.smallest * ratio) / self.side for ratio in (MAX_SIDE_RATIO, 1 / MAX_SIDE_RATIO))
        scaled_up = math.prod(1 + length for length in sides)  # each side is rounded up
        return math.floor(max(scaled_down, scaled_up))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of one kind: its pictures, and the tokens of its text and of its longest answer."""

    pictures: int
    text: int
    answer: int


class Fitted:
    """The limits of an engine, which differ between profiles: their answers differ in length."""

    def __init__(self, processor: Any, settings: Settings, question: Callable[[Task, Profile], Sequence[int]]) -> None:
        """`processor` is the checkpoint's image processor, `question` gives the tokens of a question's text."""
        self._settings = settings
        self._question = question
        self._wanted = _wanted(processor, settings)
        self.limits = cache(self._limits)

    def begin(self, profile: Profile) -> PixelLimits | None:
        """The limits of the profile that the engine begins with. Raises UserError if a setting does not fit."""
        if self._settings.max_pixels and self._wanted:
            check_fits(self._wanted, self._asked(profile), self._settings.max_model_len)
        return self.limits(profile)

    def _limits(self, profile: Profile) -> PixelLimits | None:
        """See `Engine.pixel_limits`."""
        wanted, context = self._wanted, self._settings.max_model_len
        if wanted is None:
            return None
        limits = fitting(wanted, self._asked(profile), context)
        if limits.largest < wanted.largest:
            log.info(
                "pictures of more than %d pixels are scaled down to that, not to %d: two of them, the question and the "
                "longest answer of the profile %s must fit into max_model_len, %d",
                *(limits.largest, wanted.largest, profile.name, context),
            )
        return limits

    def _asked(self, profile: Profile) -> list[Asked]:
        """Every question. Each of its pictures has one token in the text, in whose place its visual ones stand."""
        return [
            Asked(
                pictures,
                text=len(self._question(task, profile)) - pictures,
                answer=max_tokens(task, profile, self._settings.max_answer_tokens),
            )
            for task, pictures in PICTURES.items()
        ]


def _wanted(processor: Any, settings: Settings) -> PixelLimits | None:
    """The settings' limits, or else the processor's; None if it does not scale pictures as the Qwen-VL family does."""
    if not hasattr(processor, "merge_size") or "shortest_edge" not in processor.size:
        return None
    return PixelLimits(
        smallest=settings.min_pixels or processor.size["shortest_edge"],
        largest=settings.max_pixels or processor.size["longest_edge"],
        side=processor.patch_size * processor.merge_size,
    )


def fitting(wanted: PixelLimits, asked: Sequence[Asked], context: int) -> PixelLimits:
    """`wanted`, or less for the largest pictures, so that every kind of question fits into a context of so many tokens.

    Raises UserError if the smallest pictures are too large.
    """
    tightest, room = _tightest(asked, context)
    limits = replace(wanted, largest=min(wanted.largest, _most_pixels(wanted, room)))
    if limits.largest < limits.smallest or limits.most_tokens() > room:
        smallest = replace(wanted, largest=wanted.smallest)
        raise UserError(f"min_pixels is {_too_much(smallest, tightest, context)}")
    return limits


def check_fits(wanted: PixelLimits, asked: Sequence[Asked], context: int) -> None:
    """Raises UserError, with the arithmetic, if the largest pictures do not fit."""
    tightest, room = _tightest(asked, context)
    if wanted.most_tokens() > room:
        raise UserError(f"max_pixels is {_too_much(wanted, tightest, context)}")


def _tightest(asked: Sequence[Asked], context: int) -> tuple[Asked, int]:
    """The question that leaves the fewest tokens for a picture, and their number."""
    rooms = {one: max(0, (context - one.text - one.answer) // one.pictures) for one in asked}
    return min(rooms.items(), key=lambda entry: entry[1])


def _most_pixels(wanted: PixelLimits, room: int) -> int:
    """The largest area of pictures that take at most `room` tokens each, however long they are."""
    return min(room, room**2 // MAX_SIDE_RATIO) * wanted.side**2


def _too_much(wanted: PixelLimits, asked: Asked, context: int) -> str:
    tokens = wanted.most_tokens()
    total = asked.pictures * tokens + asked.text + asked.answer
    most = _most_pixels(wanted, _tightest([asked], context)[1])
    return (
        f"{wanted.largest:,}: up to {tokens:,} visual tokens a picture. {asked.pictures} of them, {asked.text:,} "
        f"tokens of question and {asked.answer:,} of answer make {total:,}, but max_model_len is {context:,}. Set "
        f"max_model_len to at least {total:,}" + (f", or scale pictures to at most {most:,} pixels" if most else "")
    )
