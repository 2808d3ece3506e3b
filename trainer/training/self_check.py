"""Checks the trainer's log-probabilities against the model's own forward pass, before anything is learnt from them.

Two questions about each way to compute them, the faster one first:

1. Is it the same function? In float32 the way and the model's own pass over one row agree to 1e-5, so what is missing
   or misplaced shows, however small it is and whatever the type of the weights.
2. Is it as exact as the model is? In bfloat16 the model's own pass is itself 0.01 to 0.2 nats from float32, the more
   the wider its logits spread. A way may be twice as far, in the mean and in the 95 % quantile; the largest difference
   of hundreds of tokens says nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from trainer.errors import UnsupportedModel
from trainer.training import shared_prefix
from trainer.training.logprobs import Answers, States, answer_logprobs
from trainer.training.precise import Float32
from trainer.training.shared_prefix import Prompt

SHARED = "shared prefix"
WAYS: dict[str, States] = {SHARED: shared_prefix.shared_states, "repeated prefix": shared_prefix.repeated_states}
_SAME = 1e-3
"""Nats in the mean that two computations of one function may differ by in float32."""
_HIGH = 5.0
"""How many times as much that is in the 95 % quantile."""
_NOISE = 2.0
"""How many times as far from float32 as the model's own pass a way may be."""
_SHORT = (8, 6, 3, 1)
"""Tokens of the short answers to each prompt. They attend in one block; two that outweigh their prompt do not."""
ADVICE = "evolve a checkpoint of an architecture that passes the self-check: Qwen2.5-VL or Qwen2-VL"
_CONTINUED = {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": 0}
"""Inputs that have a value for each token, and that of an answer's tokens."""


class Apart(NamedTuple):
    """How far log-probabilities are from the model's own in float32, in nats."""

    mean: float
    high: float
    """The 95 % quantile."""

    def __str__(self) -> str:
        return f"{self.mean:.2g} nats in the mean, {self.high:.2g} in the 95 % quantile"


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The way to compute log-probabilities that passed, and by how much. Differences are the worse of short answers and
    long ones."""

    way: str
    rejected: dict[str, str]
    """Faster ways, and why they are not taken."""
    exact: Apart
    """The way, in float32."""
    rounded: Apart
    """The way, in the model's own type."""
    noise: Apart
    """The model's own pass, in its own type."""

    def __str__(self) -> str:
        """A sentence for the log."""
        told = f"log-probabilities by the {self.way}: {self.exact} from the model's own forward pass in float32"
        if self.noise.mean:
            told += f"; in its own type {self.rounded}, that pass itself {self.noise}"
        return told + "".join(f"; not by the {name}: {reason}" for name, reason in self.rejected.items())

    def as_dict(self) -> dict[str, Any]:
        """For `self_check.json`."""
        pairs = {name: getattr(self, name)._asdict() for name in ("exact", "rounded", "noise")}
        return {**asdict(self), **pairs, "said": str(self)}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under check."""

    model: PreTrainedModel
    """With its head."""
    encode: Callable[[], Sequence[Prompt]]
    """Makes the trainer's prompts, N of them."""
    inputs: Sequence[BatchFeature]
    """The processor's inputs of each of these prompts alone, as the model's own forward takes them."""
    words: Sequence[int]
    """Token ids to make answers of, none of them special."""


class _Passes(NamedTuple):
    """The log-probabilities of each set of answers, flat."""

    exact: list[Tensor]
    """In float32."""
    rounded: list[Tensor]
    """In the model's own type."""


@torch.no_grad()
def self_check(subject: Subject) -> SelfCheck:
    """Tries the ways on short and on long answers, and chooses the first that passes.

    Raises:
        UnsupportedModel: none does, or the model's own pass fails.
    """
    asked, rejected = _made_answers(subject), dict[str, str]()
    own = _passes(partial(_own, subject), asked)
    if isinstance(own, str):
        raise UnsupportedModel(f"{_name(subject)} cannot be trained: its own forward pass {own}; {ADVICE}")
    noise = _aparts(own.rounded, own.exact)
    for name, states in WAYS.items():
        found = _passes(partial(_by, states, subject), asked)
        if isinstance(found, str):
            rejected[name] = f"it {found}"
            continue
        exact, rounded = _aparts(found.exact, own.exact), _aparts(found.rounded, own.exact)
        if not all(_within(each, Apart(0, 0)) for each in exact):
            rejected[name] = f"in float32 it is {max(exact)} from the model's own forward pass"
        elif not all(map(_within, rounded, noise)):
            rejected[name] = f"it is {max(rounded)} from float32, the model's own forward pass {max(noise)}"
        else:
            return SelfCheck(name, rejected, max(exact), max(rounded), max(noise))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    raise UnsupportedModel(
        f"the trainer does not compute the log-probabilities of {_name(subject)} as the model itself does, and would "
        f"teach it nonsense ({reasons}); {ADVICE}"
    )


def _name(subject: Subject) -> str:
    return type(subject.model).__name__


def _made_answers(subject: Subject) -> list[list[Answers]]:
    """A set of short answers to each prompt, and one of answers that are together longer than any prompt."""
    draw, prompts = random.Random(0), range(len(subject.inputs))
    longest = max(inputs["input_ids"].shape[1] for inputs in subject.inputs)
    lengths = _SHORT, (longest // 2 + 2, longest // 4 + 1)
    return [[[draw.choices(subject.words, k=length) for length in each] for _ in prompts] for each in lengths]


def _passes(compute: Callable[[list[Answers]], Tensor], asked: list[list[Answers]]) -> _Passes | str:
    """The log-probabilities of each set, or what the computation raises."""
    try:
        rounded = [compute(answers) for answers in asked]
        with Float32():
            return _Passes([compute(answers) for answers in asked], rounded)
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever a model's code that nobody has tried may raise
        return f"raises {type(failure).__name__}: {failure}"


def _by(states: States, subject: Subject, answers: list[Answers]) -> Tensor:
    """The trainer's way."""
    found = answer_logprobs(
        states, subject.model.model.language_model, subject.model.lm_head, subject.encode(), answers
    )
    return found.chosen[found.mask.bool()]


def _own(subject: Subject, answers: list[Answers]) -> Tensor:
    """The model's own way, with its stock attention: one row an answer."""
    language_model = subject.model.model.language_model
    language_model.set_attn_implementation("sdpa")
    try:
        rows = zip(subject.inputs, answers, strict=True)
        return torch.cat([_own_row(subject.model, inputs, answer) for inputs, group in rows for answer in group])
    finally:
        shared_prefix.install(language_model)


def _own_row(model: PreTrainedModel, inputs: BatchFeature, answer: Sequence[int]) -> Tensor:
    """(T,) The log-probabilities of one answer's tokens."""
    tokens = torch.tensor([answer], device=model.device)
    continued = {name: torch.full_like(tokens, value) for name, value in _CONTINUED.items() if name in inputs}
    rows = {name: torch.cat([inputs[name], more], 1) for name, more in {"input_ids": tokens, **continued}.items()}
    kept = len(answer) + 1
    logits = model(**{**inputs, **rows}, use_cache=False, logits_to_keep=kept).logits[0, -kept:-1]
    return logits.float().log_softmax(-1).gather(-1, tokens.T)[:, 0]


def _aparts(found: list[Tensor], truth: list[Tensor]) -> list[Apart]:
    differences = [(one - other).abs() for one, other in zip(found, truth, strict=True)]
    return [Apart(float(each.mean()), float(each.quantile(0.95))) for each in differences]


def _within(apart: Apart, noise: Apart) -> bool:
    """False for NaN too."""
    return apart.mean <= _SAME + _NOISE * noise.mean and apart.high <= _HIGH * _SAME + _NOISE * noise.high
