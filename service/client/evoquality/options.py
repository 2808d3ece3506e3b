"""The options of a question to the model: the part of the contract that callers of every route share.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

Mode = Literal["expected", "sampled"]
RANDOM: Literal["random"] = "random"
"""A seed that is drawn anew for each request."""


_LIMIT = 2**31


def _seed(given: Any) -> int | Literal["random"]:
    if given == RANDOM:
        return RANDOM
    with suppress(TypeError, ValueError):
        if not isinstance(given, float | bool) and 0 <= (seed := int(given)) < _LIMIT:
            return seed
    raise PydanticCustomError("seed", f"Input should be a whole number from 0 to {_LIMIT - 1}, or {RANDOM}")


Samples = Annotated[int, Field(ge=1, le=64, description="K: how many answers are sampled.")]
EvenSamples = Annotated[int, Field(ge=2, le=64, multiple_of=2, description="Votes in all, half of them in each order.")]
EvenThoughts = Annotated[int, Field(ge=2, le=64, multiple_of=2, description="In all, half of them in each order.")]
AnswerTokens = Annotated[
    int,
    Field(ge=8, description="Longest answer of a model that thinks, thought included; the service's own by default."),
]
Priority = Annotated[int, Field(ge=0, le=100, description="Higher waits longer; users have 0.")]
Temperature = Annotated[float, Field(ge=0.0, le=2.0, description="0 is greedy decoding.")]
Seed = Annotated[int, Field(ge=0, lt=_LIMIT, description="Makes what is sampled repeatable.")]
SeedOrRandom = Annotated[
    int | Literal["random"],
    PlainValidator(_seed),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "exclusiveMaximum": _LIMIT}, {"const": RANDOM}]}),
]
Margin = Annotated[float, Field(ge=0.0, le=0.5, description="A tie is a probability at most this far from one half.")]

_THOUGHTS = "Expected mode of a model that thinks: thoughts to sample; 4 unless given."
_REASONING = "Whether sampled answers and thoughts are given as text."


class Request(BaseModel):
    """Base of requests: unknown fields are an error, not silently dropped."""

    model_config = ConfigDict(extra="forbid")


class Options(Request):
    """Options of a question to the model.

    `expected`, the default, reads the model's own probabilities; of a model that thinks, behind sampled thoughts.
    `sampled` draws whole answers; it is chosen by giving `samples`, or, of a model that does not think, any option of
    sampling. What is sampled is the same for the same pictures, unless `seed` says otherwise.
    """

    mode: Mode | None = None
    temperature: Temperature | None = Field(default=None, description="Of what is sampled; 1 unless given.")
    seed: SeedOrRandom | None = Field(
        default=None,
        description="Of what is sampled: a number, or `random` for another one every time. Unless given, it is made of "
        "the pictures, so that the same pictures get the same answer.",
    )


class ScoreOptions(Options):
    """Options of a score."""

    samples: Samples | None = Field(default=None, description="Sampled mode only; 8 unless given.")
    thoughts: Samples | None = Field(default=None, description=_THOUGHTS)
    distribution: bool = Field(default=False, description="Whether the answer gives the distribution of scores.")
    reasoning: bool = Field(default=False, description=_REASONING)


class CompareOptions(Options):
    """Options of a comparison."""

    samples: EvenSamples | None = Field(default=None, description="Sampled mode only; 8 unless given.")
    thoughts: EvenThoughts | None = Field(default=None, description=_THOUGHTS)
    margin: Margin = 0.0
    reasoning: bool = Field(default=False, description=_REASONING)


class RankOptions(Options):
    """Options of a ranking."""

    samples: EvenSamples | None = Field(default=None, description="Votes a pair; sampled mode only; 8 unless given.")
    thoughts: EvenThoughts | None = Field(default=None, description=f"A pair. {_THOUGHTS}")
    comparisons: Annotated[int, Field(ge=1, le=2016)] | None = Field(
        default=None,
        description="Comparisons to make, n - 1 or more. Default: n log2(n); never more than all n (n - 1) / 2 pairs.",
    )
