"""`make replicas`: three replicas behind HAProxy follow the store's ACTIVE pointer under traffic.

    python -m tests.benchmarks.replicas.scenario [--run runs/replicas] [--spread 30]

Starts three `evoquality serve --follow` on one store, HAProxy in front of them, and clients that send requests through
HAProxy. Promotes three versions, rolls one back, then activates a version with damaged weights. Writes `replicas.json`
and prints a summary.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.versions.store import VersionStore
from tests.benchmarks.replicas.figures import Change, Kind, Unloadable, of_change, of_traffic, of_unloadable, show
from tests.benchmarks.replicas.fleet import (
    Balancer,
    active_version,
    add_version,
    balancer,
    damage_weights,
    fleet,
    installed,
    moved_at,
    new_store,
    promote,
    read_only,
    refuses,
    rollback,
)
from tests.benchmarks.replicas.traffic import read_answers
from tests.benchmarks.replicas.watch import Watch, What, blackouts, watching
from trainer.demo.contents import content
from trainer.files import write_json
from trainer.progress import Stages
from trainer.serving import running

PROMOTIONS = 3
IMAGES = 12
CALM_SECONDS = 2.0
"""Seconds of traffic between two changes."""
DRAIN_SECONDS, LOAD_SECONDS = 60.0, 60.0
"""Upper bounds for one swap: the service's drain timeout and the time to load the weights."""


@dataclass
class Scenario:
    """One run of the scenario; all its files go to the folder `run`."""

    run: Path
    follow_seconds: float
    spread_seconds: float
    stages: Stages

    def run_all(self) -> dict[str, Any]:
        """Runs every step and returns the measurements.

        Raises:
            TimeoutError: a replica did not follow the pointer in time.
            ChildProcessError: the clients or a server ended early.
        """
        store = new_store(self.run / "store")
        versions = [add_version(store, seed) for seed in range(1, PROMOTIONS + 2)]
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
        """Promotes each version in turn, then rolls back once."""
        promotions = [self._change("promotion", partial(promote, store, version), store, watch) for version in versions]
        return [*promotions, self._change("rollback", partial(rollback, store), store, watch)]

    def _figures(
        self, store: VersionStore, watch: Watch, changes: list[Change], unloadable: Unloadable
    ) -> dict[str, Any]:
        answers, gates = list(read_answers(self._answers)), blackouts(watch.replicas)
        return {
            "settings": {
                "replicas": len(watch.replicas),
                "follow_seconds": self.follow_seconds,
                "follow_spread_seconds": self.spread_seconds,
                "read_only_store": bool(read_only(store.root)),
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
        """Sends requests through the balancer until the block ends. Raises ChildProcessError if they end early."""
        images, log = self.run / "images", self.run / "traffic.log"
        images.mkdir()
        for index in range(IMAGES):
            content("benchmark", index).save(images / f"{index:02d}.png")
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.replicas.traffic",
            f"--url={balanced.url}",
            f"--images={images}",
            f"--out={self._answers}",
        ]
        with running(command, log) as process:
            time.sleep(2 * CALM_SECONDS)
            yield
            if process.poll() is not None:
                raise ChildProcessError(f"the clients ended early:\n{log.read_text()}")

    def _change(self, kind: Kind, move: Callable[[], float], store: VersionStore, watch: Watch) -> Change:
        """Moves the pointer and waits until every replica serves the new version."""
        with self.stages.stage(f"{kind}: all replicas follow", total=None):
            moved = move()
            version = active_version(store)
            self._wait(watch, "version", version)
        time.sleep(CALM_SECONDS)
        return Change(kind, version, moved, time.time())

    def _unloadable(self, store: VersionStore, version: str, watch: Watch) -> Unloadable:
        """Activates a version with damaged weights by writing the pointer directly, then rolls back."""
        damage_weights(store, version)
        refused = refuses(store, version)
        with self.stages.stage("a damaged version: all replicas keep the one before", total=None):
            store.activate(version)
            moved = moved_at(store)
            self._wait(watch, "state", "not_following")
        time.sleep(CALM_SECONDS)
        with self.stages.stage("the pointer returns: all replicas are ready", total=None):
            returned = rollback(store)
            self._wait(watch, "state", "ready")
        time.sleep(CALM_SECONDS)
        return Unloadable(version, active_version(store), refused, moved, returned, time.time())

    def _wait(self, watch: Watch, what: What, value: str) -> None:
        bound = self.follow_seconds + self.spread_seconds + DRAIN_SECONDS + LOAD_SECONDS
        if not watch.wait(what, value, bound):
            raise TimeoutError(
                f"not all replicas reported {value} within {bound:.0f} s: {watch.now(what)}; see the logs in {self.run}"
            )


def main(
    run: Annotated[Path, typer.Option(help="Output folder; emptied first.")] = Path("runs/replicas"),
    follow: Annotated[float, typer.Option(help="Seconds between two reads of the pointer by a replica.")] = 2,
    spread: Annotated[
        float, typer.Option(help="Each replica delays its swap by a random time up to this many seconds.")
    ] = 10,
) -> None:
    """Checks that replicas follow the store's pointer without a failed request or an answer of mixed versions."""
    if installed() is None:
        sys.exit("HAProxy is needed (apt-get install haproxy)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the context managers, which stop all processes
    shutil.rmtree(run, ignore_errors=True)
    figures = Scenario(run, follow, spread, Stages(run / "stages.jsonl")).run_all()
    write_json(run / "replicas.json", figures)
    show(figures, Console())


if __name__ == "__main__":
    typer.run(main)
