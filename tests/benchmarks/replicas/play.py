"""The play: three promotions, a rollback, and a version that no replica can load, all under traffic."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.versions.store import VersionStore
from tests.benchmarks.replicas import pointer
from tests.benchmarks.replicas.answers import read_answers
from tests.benchmarks.replicas.balancer import Balancer, balancer
from tests.benchmarks.replicas.change_figures import Change, Kind, Unloadable, of_change, of_unloadable
from tests.benchmarks.replicas.fleet import cannot_write, fleet
from tests.benchmarks.replicas.gates import blackouts
from tests.benchmarks.replicas.traffic_figures import of_traffic
from tests.benchmarks.replicas.watch import Watch, What, watching
from trainer.demo.contents import content
from trainer.progress import Stages
from trainer.serving import running

PROMOTIONS = 3
IMAGES = 12
CALM_SECONDS = 2.0
"""Traffic between two changes."""
DRAIN_SECONDS, LOAD_SECONDS = 60.0, 60.0
"""What a swap may take beside its turn: the service's own limit for running requests, and ample time to load."""


@dataclass
class Play:
    """One performance in the folder `run`."""

    run: Path
    follow_seconds: float
    spread_seconds: float
    stages: Stages

    def perform(self) -> dict[str, Any]:
        """Returns the figures. Raises TimeoutError if a replica does not follow within the bound."""
        store = pointer.new_store(self.run / "store")
        versions = [pointer.add(store, seed) for seed in range(1, PROMOTIONS + 2)]
        with ExitStack() as alive:
            with self.stages.stage("three replicas start", total=None):
                replicas = alive.enter_context(fleet(store.root, self.run, self.follow_seconds, self.spread_seconds))
            balanced = alive.enter_context(balancer(replicas, self.run / "haproxy.log"))
            watch = alive.enter_context(watching(replicas))
            with self._traffic(balanced):
                changes = self._changes(store, versions[:PROMOTIONS], watch)
                unloadable = self._unloadable(store, versions[PROMOTIONS], watch)
            return self._figures(store, watch, changes, unloadable) | {"balancer": balanced.counts()}

    def _changes(self, store: VersionStore, versions: list[str], watch: Watch) -> list[Change]:
        """Promotes each version, and rolls the last one back."""
        promotions = [
            self._change("promotion", partial(pointer.promote, store, version), store, watch) for version in versions
        ]
        return [*promotions, self._change("rollback", partial(pointer.rollback, store), store, watch)]

    def _figures(
        self, store: VersionStore, watch: Watch, changes: list[Change], unloadable: Unloadable
    ) -> dict[str, Any]:
        answers, gates = list(read_answers(self._answers)), blackouts(watch.replicas)
        return {
            "settings": {
                "replicas": len(watch.replicas),
                "follow_seconds": self.follow_seconds,
                "follow_spread_seconds": self.spread_seconds,
                "read_only_store": bool(cannot_write(store.root)),
            },
            "changes": [of_change(change, watch.events, gates, answers) for change in changes],
            "unloadable": of_unloadable(unloadable, watch.events, answers),
            "traffic": of_traffic(answers),
            "events": [asdict(event) for event in watch.events],
            "blackouts": [asdict(gate) for gate in gates],
        }

    @property
    def _answers(self) -> Path:
        return self.run / "answers.jsonl"

    @contextmanager
    def _traffic(self, balanced: Balancer) -> Iterator[None]:
        """Callers through the balancer. Raises ChildProcessError if they end before the block does."""
        images, log = self.run / "images", self.run / "traffic.log"
        images.mkdir()
        for index in range(IMAGES):
            content("benchmark", index).save(images / f"{index:02d}.png")
        command = [
            sys.executable, "-m", "tests.benchmarks.replicas.traffic", "--url", balanced.url, "--images", str(images),
            "--out", str(self._answers),
        ]  # fmt: skip
        with running(command, log) as process:
            time.sleep(2 * CALM_SECONDS)
            yield
            if process.poll() is not None:
                raise ChildProcessError(f"the callers ended too soon:\n{log.read_text()}")

    def _change(self, kind: Kind, move: Callable[[], float], store: VersionStore, watch: Watch) -> Change:
        """Moves the pointer and waits until all have followed."""
        with self.stages.stage(f"{kind}: all replicas follow", total=None):
            moved = move()
            version = pointer.active(store)
            self._wait(watch, "version", version)
        time.sleep(CALM_SECONDS)
        return Change(kind, version, moved, time.time())

    def _unloadable(self, store: VersionStore, version: str, watch: Watch) -> Unloadable:
        """Points at a version whose weights were damaged, as only a hand can, and back."""
        pointer.damage(store, version)
        refused = pointer.refuses(store, version)
        with self.stages.stage("a damaged version: all replicas keep the one before", total=None):
            store.activate(version)
            moved = pointer.moved(store)
            self._wait(watch, "state", "not_following")
        time.sleep(CALM_SECONDS)
        with self.stages.stage("the pointer returns: all replicas are ready", total=None):
            returned = pointer.rollback(store)
            self._wait(watch, "state", "ready")
        time.sleep(CALM_SECONDS)
        return Unloadable(version, pointer.active(store), refused, moved, returned, time.time())

    def _wait(self, watch: Watch, what: What, value: str) -> None:
        bound = self.follow_seconds + self.spread_seconds + DRAIN_SECONDS + LOAD_SECONDS
        if not watch.wait(what, value, bound):
            raise TimeoutError(f"after {bound:.0f} s not all replicas say {value}: {watch.now(what)}; see {self.run}")
