"""Ground truth of the demo's synthetic pictures. An evolution round never imports this module.

The true quality of a picture (`quality`) is 1 + 4 exp(-s). s is the sum over its distortions of the mean severity of
their type and level over 48 contents: the average over contents, like an average of opinions. `severities.json` holds
these means; `tests/benchmarks/checkpoint/pictures.py` measures them. 5 is undamaged, 1 is ruined.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.pool.distortions import TYPES, distort

Damage = tuple[str, int]
"""A distortion type and its level."""


TABLE = Path(__file__).with_name("severities.json")
KINDS = list(TYPES)


def quality(damages: Iterable[Damage]) -> float:
    """True quality, 1 to 5, of a picture with these damages; 5 without any."""
    return 1 + 4 * math.exp(-sum(severity_of(kind, level) for kind, level in damages))


def severity_of(kind: str, level: int) -> float:
    """Mean severity of a distortion type at a level, from `severities.json`."""
    return _table()[kind][level - 1]


@cache
def _table() -> dict[str, list[float]]:
    table: dict[str, list[float]] = json.loads(TABLE.read_text())
    return table


def damage(picture: Image.Image, damages: Sequence[Damage], rng: np.random.Generator) -> Image.Image:
    """Applies distortions in order."""
    for kind, level in damages:
        picture = distort(picture, kind, level, rng)
    return picture
