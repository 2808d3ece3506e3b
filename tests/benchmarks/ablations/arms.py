"""The arms: ways of evolving that differ from the default in one thing each, those of K votes in K from each other. All
arms of a seed see the same images; a round is never run twice: what several tables show is one arm's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Start = Literal["embedded", "supervised"]
"""The checkpoint an arm starts from: the demo's, or the one of `supervised.py`."""

DOMAIN = ("blur", "noise")
"""The benchmarks whose distortions the supervised checkpoint is taught."""
OUT_OF_DOMAIN = ("compression", "resampling", "tone_colour", "local_structure")
"""Those without any of them; `wild` mixes all distortions and is neither."""

VOTES = (1, 2, 4, 8, 16, 32)
"""K of the paper's Figure 3."""


@dataclass(frozen=True, slots=True)
class Arm:
    """So many rounds with these `EvolveSettings`; what is not named is as everywhere (`trial.py`)."""

    name: str
    rounds: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    start: Start = "embedded"


def _sampled(votes: int) -> Arm:
    """Votes are drawn while any of the K could still change the majority, so the labels are those of all K. The paper's
    temperature is not published; 1 leaves the model's own probabilities as they are, of which `hard` is the limit."""
    drawn = {"votes_by": "samples", "votes": votes, "vote_error": 0.0, "vote_temperature": 1.0}
    return Arm(f"votes-{votes}", 1, drawn)


_ALL = (
    Arm("default", 4),
    *map(_sampled, VOTES),
    Arm("regression", 3, {"reward": "regression"}),
    Arm("one-order", 1, {"permute": False}),
    Arm("hard", 2, {"tie_margin": 0.0}),
    Arm("soft", 2, {"labels": "soft"}),
    Arm("informative", 1, {"pairs": "informative"}),
    Arm("stacked", 2, start="supervised"),
)

ARMS = {arm.name: arm for arm in _ALL}
"""By name, in the order they are run."""
