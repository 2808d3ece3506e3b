"""A model that thinks: how full its votes keep the engine, what reading probabilities behind thoughts saves, and what a
round gains."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.scale import in_flight, thoughts
from tests.benchmarks.scale.demo_thinking import demo_gain_percent
from tests.engine.running import Running, running
from trainer.demo.assemble import POSITIONS, thinking_checkpoint


def measure() -> dict[str, Any]:
    """`in_flight_share`, `votes_per_pair`, `variance_ratio` and `demo_gain_percent`, with the figures behind them."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        pictures = Path(folder) / "pictures"
        figures = in_flight.figures(service, pictures) | thoughts.figures(service, pictures)
    return {**figures, "demo_gain_percent": demo_gain_percent()}


@contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """The thinking checkpoint behind the real service, whose answers are not cached."""
    checkpoint = thinking_checkpoint(folder / "checkpoint")
    settings = {"CHECKPOINT": checkpoint, "PROFILE": "evoquality", "MAX_MODEL_LEN": POSITIONS, "CACHE_ENTRIES": 0}
    env = {f"EVOQUALITY_{name}": str(value) for name, value in settings.items()}
    with running(folder / "store", folder / "log", env) as service:
        yield service
