"""What was measured of a version on labelled sets: `<store>/benchmarks/<id>.json`, beside the immutable version."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from service.contract import Benchmark, BenchmarksRequest
from service.versions.store import VersionStore, write_atomically

log = logging.getLogger(__name__)


def read(store: VersionStore, version: str) -> dict[str, Benchmark]:
    """The results by the name of the set; empty if none were recorded, or none that can be read."""
    try:
        text = (store.root / "benchmarks" / f"{version}.json").read_bytes()
        return BenchmarksRequest.model_validate_json(text).benchmarks
    except FileNotFoundError:
        return {}
    except ValidationError:
        log.warning("the benchmarks of version %s cannot be read", version)
        return {}


def write(store: VersionStore, version: str, measured: BenchmarksRequest) -> None:
    """Replaces the results of a version. Raises UnknownVersion, ReadOnlyStore."""
    store.manifest(version)
    store.check_writable()
    folder = store.root / "benchmarks"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{version}.json", measured.model_dump_json())
