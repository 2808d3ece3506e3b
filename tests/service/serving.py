"""The service's own server around an engine without a model, as a process that can be sent signals.

Run as `python -m tests.service.serving FOLDER DRAIN_SECONDS`; prints both ports. It answers once FOLDER/answer exists.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

from service.api.service import create_service
from service.configuration.settings import Settings
from service.engine.protocol import Generation, Prompt, Sampling
from service.observability.logs import logging_to_stderr
from service.server import answer
from service.versions.store import VersionStore
from tests.service.conftest import KEY, checkpoint
from tests.service.fake_engine import FakeEngine


class PatientEngine(FakeEngine):
    """Answers once a file exists."""

    def __init__(self, version: str, file: Path) -> None:
        super().__init__(version)
        self._file = file

    async def generate(self, prompt: Prompt, sampling: Sampling, **options: Any) -> Generation:
        while not self._file.exists():
            await asyncio.sleep(0.01)
        return await super().generate(prompt, sampling, **options)


def main(folder: Path, drain_seconds: float) -> int:
    store = VersionStore(folder / "store")
    version = store.add(checkpoint(folder / "source", 1), parent=None, profile="plain", origin="test")
    store.activate(version.id)
    engine = PatientEngine(version.id, folder / "answer")
    settings = Settings(store=store.root, drain_seconds=drain_seconds)
    service = create_service(settings, KEY, engine, store, version)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    print(*(bound.getsockname()[1] for bound in sockets), flush=True)
    with logging_to_stderr("json", "INFO"):
        return asyncio.run(answer(service, sockets))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
