"""What to ask the service for to be answered by a policy under training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Served:
    """A version of the weights, and an adapter on it; without one, the version itself."""

    version: str
    adapter: str | None = None
