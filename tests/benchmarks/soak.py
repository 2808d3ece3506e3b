"""`make soak`: the service under ten minutes of photographs and promotions, in the memory of k8s/overlays/cpu.

    python -m tests.benchmarks.soak [--seconds 600] [--run runs/soak]

Writes `<run>.json` and ends with 1 if a limit is broken. Every answer is compared with what its version answers when
nothing else is asked.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from tests.benchmarks.replicas.fleet import active_version, add_version, new_store
from tests.benchmarks.soak_photographs import photograph
from tests.benchmarks.soak_process import (
    Cgroup,
    Stall,
    confined,
    engine_of,
    longest_stall,
    resident_mib,
    wait_until_calm,
)
from tests.benchmarks.soak_traffic import CALLERS, Questions, Seen, ask_once, cold, promotion
from tests.engine.pictures import pictures
from trainer.files import write_json
from trainer.progress import Stages
from trainer.serving import starting

OVERLAY = Path("k8s/overlays/cpu")
PHOTOGRAPHS, SMALL = 26, 20
PROMOTE_SECONDS = 3.0
WARM_UP = 0.1
"""Share of the time before memory is measured for the first time: pools and caches fill."""
LIMITS = {
    "fivexx": 0,
    "lost": 0,
    "mixed": 0,
    "api_growth_mib": 40,
    "engine_growth_mib": 300,
    "worst_loop_ms": 100,
    "worst_wait_of_a_score_ms_beside_a_batch": 2000,
}

Cold = Mapping[str, Mapping[str, Any]]
"""Version -> question -> value."""


@dataclass
class Observed:
    """A soak's requests and measurements. Memory in MiB: of the service's process, and of the engine's."""

    seen: list[Seen] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    calm: list[tuple[float, float]] = field(default_factory=list)
    """When nothing is asked: after the warm-up, and at the end."""
    held: list[float] = field(default_factory=list)
    """Of all processes, where a cgroup tells."""


def figures(observed: Observed, answers: Cold) -> dict[str, float]:
    """What `soak.json` holds."""
    (api_before, engine_before), *_, (api, engine) = observed.calm
    return {
        "requests": len(observed.seen),
        "fivexx": sum(any(status >= 500 for status, _ in unexpected(seen)) for seen in observed.seen),
        "lost": sum(any(status < 500 for status, _ in unexpected(seen)) for seen in observed.seen),
        "mixed": sum(not is_pure(seen, answers) for seen in observed.seen),
        "api_growth_mib": round(api - api_before, 1),
        "engine_growth_mib": round(engine - engine_before, 1),
        "worst_loop_ms": round(max(stall.own for stall in observed.stalls), 1),
        "worst_wait_of_a_score_ms_beside_a_batch": round(1000 * worst_wait(observed.seen), 1),
    }


def unexpected(seen: Seen) -> list[tuple[int, str]]:
    """The refusals that a caller did not ask for: one who gives too little time may be told so."""
    return [told for told in seen.problems if not (seen.kind == "hasty" and told[1] == "deadline_exceeded")]


def is_pure(seen: Seen, answers: Cold) -> bool:
    """True if one version gave all values, and gives the same ones when nothing else is asked."""
    if not seen.values:
        return True
    known = answers.get(next(iter(seen.versions)), {})
    return len(seen.versions) == 1 and all(known.get(name) == value for name, value in seen.values.items())


def worst_wait(seen: Sequence[Seen]) -> float:
    """Seconds that the slowest score of a small picture took, of those that overlap with a batch."""
    batches = [(each.sent, each.received) for each in seen if each.kind == "batch"]
    beside = (
        each.received - each.sent
        for each in seen
        if each.kind == "score" and any(sent < each.received and each.sent < received for sent, received in batches)
    )
    return max(beside, default=0.0)


def broken(found: Mapping[str, float]) -> list[str]:
    """The figures above their limits."""
    return [name for name, limit in LIMITS.items() if found[name] > limit]


def overlay() -> tuple[list[str], int]:
    """The flags of the overlay's settings, and the bytes of its memory limit."""
    [generator] = [
        each
        for each in yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())["configMapGenerator"]
        if each["name"] == "service"
    ]
    settings = (literal.split("=", 1) for literal in generator["literals"])
    flags = [
        f"--{name.removeprefix('EVOQUALITY_').lower().replace('_', '-')}={value}" for name, value in settings if value
    ]
    [container] = yaml.safe_load((OVERLAY / "service.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    return flags, int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30


@dataclass
class Soak:
    """One soak: its service, and the processes that ask it."""

    run: Path
    stages: Stages
    cgroup: Cgroup | None
    url: str = ""
    operators: str = ""
    key: str = ""
    process: int = 0

    def whole(self, seconds: float, flags: Sequence[str]) -> tuple[Observed, Cold]:
        """Runs everything."""
        with self.stages.stage("photographs", total=None), self._processes() as processes:
            questions = Questions(list(processes.map(photograph, range(PHOTOGRAPHS))), pictures(SMALL))
        store = new_store(self.run / "store")
        versions = [active_version(store), add_version(store, seed=1)]
        within = self.cgroup.within() if self.cgroup else []
        log = self.run / "service.log"
        with starting(store.root, log, "--cache-entries=0", *flags, within=within) as service:
            with self.stages.stage("the service starts", total=None):
                service.wait()
            self.url, self.operators, self.process = service.public, service.operator, service.process.pid
            self.key = (store.root / "operator.key").read_text().strip()
            return self._asked(seconds, questions, versions)

    def _asked(self, seconds: float, questions: Questions, versions: Sequence[str]) -> tuple[Observed, Cold]:
        answers, observed = {}, Observed()
        for version in versions:
            with self.stages.stage(f"cold values of {version}", total=None):
                ask_once(self.operators, self.key, promotion(version))
                answers[version] = asyncio.run(cold(self.url, questions))
        for name, share in (("warm-up", WARM_UP), ("soak", 1 - WARM_UP)):
            with self.stages.stage(name, total=None):
                self._under_traffic(seconds * share, questions, versions, observed)
        return observed, answers

    def _under_traffic(self, seconds: float, questions: Questions, versions: Sequence[str], observed: Observed) -> None:
        with self._processes() as processes:
            asking = [processes.submit(callers, self.url, questions, seconds) for callers in CALLERS]
            probing = processes.submit(longest_stall, self.url, self.process, seconds)
            self._promote(seconds, versions, observed, [*asking, probing])
            for callers in asking:
                observed.seen += callers.result()
            observed.stalls.append(probing.result())
        wait_until_calm(self.operators)
        observed.calm.append((resident_mib(self.process), resident_mib(engine_of(self.process))))

    def _promote(
        self, seconds: float, versions: Sequence[str], observed: Observed, running: Sequence[Future[Any]]
    ) -> None:
        """Promotes the versions in turn. Ends early if a process does, and its result tells why."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until - PROMOTE_SECONDS and not any(each.done() for each in running):
            time.sleep(PROMOTE_SECONDS)
            number += 1
            observed.seen.append(ask_once(self.operators, self.key, promotion(versions[number % len(versions)])))
            if self.cgroup:
                observed.held.append(self.cgroup.held_mib())

    @staticmethod
    @contextmanager
    def _processes() -> Iterator[ProcessPoolExecutor]:
        """A process for each set of callers, and one for the probe: none delays another."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(CALLERS) + 1, mp_context=context) as pool:
            yield pool


def show(found: Mapping[str, float], observed: Observed, cgroup: Cgroup | None, console: Console) -> None:
    """Prints the figures beside their limits, and what explains them."""
    table = Table("figure", "value", "limit")
    over = broken(found)
    for name, value in found.items():
        table.add_row(
            name, f"{value:g}", f"{LIMITS[name]}" if name in LIMITS else "", style="red" if name in over else ""
        )
    console.print(table)
    kinds = Counter(seen.kind for seen in observed.seen)
    stall = max(stall.whole for stall in observed.stalls)
    again = sum(len(seen.divided) for seen in observed.seen)
    console.print(", ".join(f"{count} × {kind}" for kind, count in kinds.most_common()))
    console.print(f"longest answer of the liveness route, waits for a processor included: {stall:.0f} ms")
    console.print(f"pictures of batches that a swap divided, sent again: {again}")
    if cgroup:
        most = max(observed.held, default=0)
        console.print(f"most memory held: {most:.0f} MiB; processes ended for want of it: {cgroup.kills()}")
    for told, count in Counter(told for seen in observed.seen for told in unexpected(seen)).most_common(10):
        console.print(f"{count} × {told}", style="red")


def main(
    seconds: Annotated[float, typer.Option(help="Length of the soak.")] = 600,
    run: Annotated[Path, typer.Option(help="Folder of the store and the log, emptied first.")] = Path("runs/soak"),
) -> None:
    """Asks the service for photographs, small scores, comparisons and ranks while its versions change."""
    console = Console()
    shutil.rmtree(run, ignore_errors=True)
    flags, limit = overlay()
    with ExitStack() as stack:
        cgroup = stack.enter_context(confined(limit))
        if cgroup is None:
            console.print("no memory cgroup: this user may not make one, so nothing limits the memory", style="yellow")
        soak = Soak(run, Stages(run / "stages.jsonl"), cgroup)
        observed, answers = soak.whole(seconds, flags)
        found = figures(observed, answers)
        write_json(run.with_suffix(".json"), found)
        console.print(f"load of the machine: {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors")
        show(found, observed, cgroup, console)
    if broken(found):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
