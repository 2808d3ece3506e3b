"""`python -m tests.service.engineless …` is `evoquality …`, but that `serve` has an engine without a model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from service.cli import app
from service.configuration.settings import Settings
from service.prompts import Profile
from tests.service.fake_engine import FakeEngine


class Engine(FakeEngine):
    """Starts as the real one does."""

    def __init__(self, weights: Path, profile: Profile, settings: Settings) -> None:
        super().__init__(weights.name)

    async def warm_up(self, version: str, profile: Profile) -> None:
        assert version == self.version


if __name__ == "__main__":
    module = sys.modules["service.engine.vllm_engine"] = ModuleType("service.engine.vllm_engine")
    module.VllmEngine = Engine  # type: ignore[attr-defined]
    app()
