"""The service's own server around an engine without a model, as a process that can be sent signals.

Run as `python -m tests.service.serving STORE DRAIN_SECONDS SECONDS_OF_AN_ANSWER`; prints both ports.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from service.app import create_service
from service.configuration.settings import Settings
from service.observability.logs import logging_to_stderr
from service.server import answer
from service.versions.store import VersionStore
from tests.service.conftest import KEY, checkpoint
from tests.service.fake_engine import FakeEngine


def main(folder: Path, drain_seconds: float, answer_seconds: float) -> int:
    store = VersionStore(folder / "store")
    version = store.add(checkpoint(folder / "source", 1), parent=None, profile="plain", origin="test")
    store.activate(version.id)
    engine = FakeEngine(version.id)
    engine.seconds = answer_seconds
    settings = Settings(store=store.root, drain_seconds=drain_seconds)
    service = create_service(settings, KEY, engine, store, version)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    print(*(bound.getsockname()[1] for bound in sockets), flush=True)
    with logging_to_stderr("json", "INFO"):
        return asyncio.run(answer(service, sockets))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
