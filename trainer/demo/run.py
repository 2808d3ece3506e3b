"""`make demo`: evolves the embedded checkpoint for two rounds under live traffic, and measures the gain.

    python -m trainer.demo.run [--model plain|thinking] [--run runs/demo] [--seed 0] [--policy lora|full]

`make demo-thinking` evolves the thinking checkpoint for one round.

Starts the service (and for `--policy full` a rollout engine), a client that keeps sending requests, and the trainer, as
processes. Evaluates before, between and after the rounds, writes report.json and report.html, and stops all processes.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from evoquality import Client
from service.configuration.settings import operator_key
from trainer.demo.assemble import EMBEDDED, POSITIONS, thinking_checkpoint
from trainer.demo.audit import audit_round
from trainer.demo.benchmarks import write_benchmarks
from trainer.demo.contents import content
from trainer.evaluation.benchmarks.load import load_all
from trainer.evaluation.evaluate import evaluate, record
from trainer.files import write_json
from trainer.progress import Stages
from trainer.reporting.report import write_report
from trainer.serving import running, serving
from trainer.settings.protocol import Protocol

POOL_IMAGES = 64
CONSOLE = Console()


@dataclass(frozen=True)
class Subject:
    """A checkpoint that the demo evolves."""

    rounds: int
    scale: tuple[str, ...]
    """Flags of the trainer, for two cores; its defaults are larger."""
    serve: tuple[str, ...] = ()
    """Flags of the service."""


SUBJECTS = {
    "plain": Subject(rounds=2, scale=("--groups=60", "--held-back-groups=12", "--samples=12")),
    "thinking": Subject(
        rounds=1,
        scale=("--groups=24", "--held-back-groups=6", "--samples=12"),
        serve=("--profile=evoquality", f"--max-model-len={POSITIONS}"),
    ),
}


def main(
    model: Annotated[Literal["plain", "thinking"], typer.Option(help="Answers at once, or thinks first.")] = "plain",
    run: Annotated[Path, typer.Option(help="Output folder; emptied first.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="The trainer's seed.")] = 0,
    policy: Annotated[Literal["lora", "full"], typer.Option(help="Train an adapter, or all weights.")] = "lora",
    rounds: Annotated[int | None, typer.Option(help="Evolution rounds; 2, or 1 of the thinking model.")] = None,
    extra: Annotated[list[str] | None, typer.Option(help="Additional flag for the trainer, as --flag=value.")] = None,
) -> None:
    """Evolves an embedded checkpoint under live traffic and prints the gain."""
    began, subject = time.time(), SUBJECTS[model]
    rounds = rounds or subject.rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave the context managers, which stop all processes
    shutil.rmtree(run, ignore_errors=True)
    (run / "pool").mkdir(parents=True)
    stages = Stages(run / "stages.jsonl")
    with stages.stage("benchmarks and pool", total=None):
        write_benchmarks(run / "benchmarks")
        for index in range(POOL_IMAGES):
            content("pool", index).save(run / "pool" / f"{index:03d}.png")
    checkpoint = EMBEDDED if model == "plain" else thinking_checkpoint(run / "checkpoint")
    with ExitStack() as alive:
        public, operator = alive.enter_context(service(run, stages, checkpoint, *subject.serve))
        _evaluate(run, 0, public, operator, stages)
        flags = [
            *subject.scale,
            *(alive.enter_context(rollout_engine(run, stages, *subject.serve)) if policy == "full" else ()),
            *(extra or ()),
        ]
        alive.enter_context(traffic(run, public))
        for number in range(1, rounds + 1):
            _evolve(run, number, seed, operator, flags)
            _evaluate(run, number, public, operator, stages)
    with stages.stage("audit of the votes", total=None):
        for number in range(1, rounds + 1):
            before = run / f"round-{number - 1}" if number > 1 else None
            write_json(run / f"round-{number}" / "audit.json", audit_round(run / f"round-{number}", before))
    write_json(run / "seconds.json", {"total": time.time() - began})
    _show(write_report(run), run)


@contextmanager
def service(run: Path, stages: Stages, checkpoint: Path = EMBEDDED, *flags: str) -> Iterator[tuple[str, str]]:
    """A service on a checkpoint and an empty store. Yields its public and its operators' address."""
    # no cache, so that traffic reaches the engine
    with _serving(run, "service", stages, f"--checkpoint={checkpoint}", "--cache-entries=0", *flags) as addresses:
        yield addresses


@contextmanager
def rollout_engine(run: Path, stages: Stages, *flags: str) -> Iterator[list[str]]:
    """A rollout engine whose weights the trainer overwrites. Yields the trainer's flags for it."""
    with _serving(run, "rollout engine", stages, "--role=rollout", *flags) as (_, operator):
        yield ["--policy=full", f"--rollout-operator={operator}"]


@contextmanager
def _serving(run: Path, name: str, stages: Stages, *flags: str) -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        with stages.stage(f"{name} starts", total=None):
            log = run / f"{name.replace(' ', '-')}.log"
            addresses = stack.enter_context(serving(run / "store", log, *flags))
        yield addresses


@contextmanager
def traffic(run: Path, public: str) -> Iterator[None]:
    """A client that sends requests until the block ends."""
    command = [
        *(sys.executable, "-P", "-m", "trainer.demo.traffic"),
        f"--url={public}",
        f"--images={run / 'pool'}",
        f"--out={run / 'traffic.jsonl'}",
    ]
    with running(command, run / "traffic.log"):
        yield


def _evolve(run: Path, number: int, seed: int, operator: str, flags: list[str]) -> None:
    """Runs the trainer up to round `number`; it skips finished rounds."""
    command = [
        *(sys.executable, "-P", "-m", "trainer", "evolve"),
        f"--pool={run / 'pool'}",
        f"--run={run}",
        f"--store={run / 'store'}",
        f"--operator={operator}",
        f"--rounds={number}",
        f"--seed={seed}",
        *flags,
    ]
    code = subprocess.run(command, check=False).returncode
    if code:
        CONSOLE.print(f"the trainer ended with exit code {code}; see {run}", style="red")
        raise typer.Exit(code)


def _evaluate(run: Path, number: int, public: str, operator: str, stages: Stages) -> None:
    sets = load_all(run / "benchmarks")
    total = sum(len(benchmark.images) for benchmark in sets)
    with stages.stage(f"evaluation after round {number}", total=total, unit="images") as advance:
        result = evaluate(public, sets, Protocol(), run / "predictions" / f"round-{number}", advance=advance)
    write_json(run / "evaluations" / f"round-{number}.json", result.as_dict())
    with Client(operator, operator_key(run / "store" / "operator.key")) as client:
        record(result, client)
    CONSOLE.print(f"weighted PLCC after round {number}: {result.weighted_plcc:z.3f}")


def _show(report: dict[str, Any], run: Path) -> None:
    table = Table("benchmark", *("base" if n == 0 else f"round {n}" for n in range(len(report["rounds"]))), "gain")
    first, last = report["rounds"][0], report["rounds"][-1]
    for name, metrics in first["benchmarks"].items():
        values = [entry["benchmarks"][name]["plcc"] for entry in report["rounds"]]
        gain = 100 * (last["benchmarks"][name]["plcc"] / metrics["plcc"] - 1)
        table.add_row(name, *(f"{value:z.3f}" for value in values), f"{gain:+z.1f} %")
    weighted = [f"{entry['weighted_plcc']:z.3f}" for entry in report["rounds"]]
    table.add_row("weighted", *weighted, f"{report['relative_gain_percent']:+z.1f} %", style="bold")
    CONSOLE.print(table)
    seen, vote = report["traffic"], report["vote"]
    CONSOLE.print(
        f"traffic: {seen['requests']} requests, {seen['failed']} failed, {seen['mixed_version_answers']} of mixed "
        f"versions; votes: {vote['votes'] / vote['pairs']:.1f} on each of {vote['pairs']} pairs, "
        f"{vote['accuracy_on_audit']:z.3f} right on the audit; "
        f"{report['seconds_total']:.0f} s in all; report: {run / 'report.html'}"
    )


if __name__ == "__main__":
    typer.run(main)
