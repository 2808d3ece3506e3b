"""The patience of HTTP clients, the slow tests, and what one process runs in turn.

Slow are files that start processes, train, or drive a browser: `make test-quick` leaves them out. The tests of a file
share a process, and all tests of the engine one, for they share its service.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# A busy machine may need longer than httpx's five seconds for an answer; a test that hangs has the suite's own limit.
for phase in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, phase, 300.0)

SLOW = {
    "test_bodies",
    "test_bootstrap",
    "test_broken_entries",
    "test_cli",
    "test_comparison",
    "test_decoder",
    "test_distortions",
    "test_distributed",
    "test_drain",
    "test_follower",
    "test_followers",
    "test_full",
    "test_gpu_step",
    "test_hostile",
    "test_kept",
    "test_kubelet",
    "test_models",
    "test_names",
    "test_networks",
    "test_online",
    "test_outages",
    "test_packaging",
    "test_page",
    "test_pointer",
    "test_predictions",
    "test_prefix",
    "test_pricing",
    "test_raw_http",
    "test_read_only_store",
    "test_remote_code",
    "test_report",
    "test_restore",
    "test_rounding",
    "test_runs",
    "test_scaling",
    "test_self_check",
    "test_serve",
    "test_shared_prefix",
    "test_shared_store",
    "test_soak",
    "test_stages",
    "test_terminals",
    "test_torchrun",
    "test_torchrun_job",
    "test_voting",
    "test_workers",
}


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


class ByService(LoadFileScheduling):
    """One process takes all files of `tests/engine`."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/engine" if nodeid.startswith("tests/engine/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByService:
    return ByService(config, log)
