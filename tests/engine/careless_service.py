"""A service that does what must not be done, to show that the tests would notice.

Run as `python -m tests.engine.careless_service serve …`. Its swap forgets to empty the caches; and the files of
the version named in `LOSES` vanish between their checks and their loading.
"""

from __future__ import annotations

import os
from pathlib import Path

from service import cli
from service.engine import vllm_engine
from tests.engine.running import LOSES


class CarelessEngine(vllm_engine.VllmEngine):
    """Replaces the weights and nothing else."""

    async def pause(self) -> None:
        await self._llm.pause_generation(mode="wait", clear_cache=False)

    async def reload(self, weights: Path, version: str) -> None:
        if version == os.environ[LOSES]:
            weights = weights / "lost"
        await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
        await self._llm.update_weight_version(version)


if __name__ == "__main__":
    vllm_engine.VllmEngine = CarelessEngine  # type: ignore[misc]
    cli.app()
