"""Parts of a range, for figures by margin and by difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Part = NDArray[np.bool_]
"""(P,) Which values lie in a part."""


def quantiles(values: Array, parts: int) -> list[Part]:
    """Parts of about as many values each, from the smallest on; equal values stay together, so there may be fewer."""
    return _between(values, np.asarray(np.quantile(values, np.linspace(0, 1, parts + 1)))) if len(values) else []


def equal_widths(values: Array, parts: int, low: float, high: float) -> list[Part]:
    """Parts of equal width from `low` to `high`; empty ones are left out."""
    return _between(values, np.linspace(low, high, parts + 1))


def _between(values: Array, edges: Array) -> list[Part]:
    """Each part has its lower edge, the last one both."""
    inner = np.unique(edges[1:-1])
    places = np.searchsorted(inner, values, side="right")
    return [places == place for place in np.unique(places)]
