"""What a candidate must keep to, and when training is given up."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from trainer.settings.service import CONFIG, Count, Share


class GateSettings(BaseSettings):
    """Limits of the gate, of the look after a promotion, and of the collapse watch."""

    model_config = CONFIG

    gate_unreadable: Share = 0.05
    """Gate: how much larger than before the share of unreadable scores may be. The demo's healthy rounds go from 2 to
    4 % before to at most 5.4 % after; drawing other images alone moves it by 1 %."""
    gate_agreement_loss: Share = 0.03
    """Gate: how much less often than before the scores' order may agree with the votes on held-back pairs. A healthy
    round that has nothing more to learn ends within 1 or 2 % of where it began; a random order agrees with half."""
    gate_spread: Share = 0.25
    """Gate: smallest spread of the scores, as a share of the spread before."""
    gate_largest_spread: float = Field(default=1.7, ge=0)
    """Gate: largest spread of the scores: 1.15 is that of scores evenly from 1 to 5, and 2, the most there is, of
    nothing but ones and fives. The demo's healthy rounds end at 1.1 to 1.4. A larger spread before may stay."""
    gate_drift: float = Field(default=1.0, ge=0)
    """Gate: how far the mean score may move, on the scale of 1 to 5. In the demo's healthy rounds: 0.5 at most."""
    gate_position_bias: Share = 0.1
    """Gate: how much more than before the image shown first may be preferred, as a share of the votes. In the demo's
    healthy rounds it shrinks."""
    probe: Path | None = None
    """Gate: a labelled set, as `evaluate --benchmarks` takes them. Nothing is trained on it."""
    gate_probe_loss: Share = 0.02
    """Gate: how much lower than before the SRCC on the probe may be."""
    regression_drift: float = Field(default=0.25, ge=0)
    """After promotion: how far the held-back images' scores may be from the gate's in the mean, beside the gate's own
    limits, or the version before is promoted again."""

    collapse_window: Count = 5
    """Collapse watch: steps that the limits below are compared with the mean of."""
    collapse_entropy: float = Field(default=0.02, ge=0)
    """Collapse watch: smallest entropy of the answers, in nats a token. The demo's healthy rounds: 0.3 at least."""
    collapse_spread: float = Field(default=0.01, ge=0)
    """Collapse watch: smallest spread of a step's mean scores. The demo's healthy rounds: 0.5 at least."""
    collapse_constant: Share = 0.9
    """Collapse watch: largest share of images whose answers are all equal."""
    collapse_unreadable: Share = 0.5
    """Collapse watch: largest share of unreadable answers. The demo's healthy rounds: 9 % at most."""
    collapse_kl: float = Field(default=3, ge=0)
    """Collapse watch: largest KL divergence from the model the round started from, in nats a token. The demo's healthy
    rounds reach 1.2."""
