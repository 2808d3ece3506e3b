"""How right votes on labelled benchmarks are: a running service is asked about pairs of their images, as in a round.

    settings.json                     what decides the votes: every version audited in the folder is asked alike
    <benchmark>/pairs.json            groups of images, and their truth
    <benchmark>/votes/<version>.jsonl the votes, appended as they come

Killed and started again it goes on where it stopped; without anything left to ask it only counts again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.contract import InfoResponse
from service.prompts import PROFILES
from service.versions.store import VersionStore
from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.pseudo_labels.changes import changes
from trainer.evaluation.pseudo_labels.figures import beside_truth, without_truth
from trainer.evaluation.pseudo_labels.questions import Questions, kept, questions
from trainer.files import read_json, write_json
from trainer.leftovers import folder_lock
from trainer.progress import Stages
from trainer.settings.evaluate import AuditSettings
from trainer.voting.groups import pairs_of
from trainer.voting.voters import cast, choose_voter
from trainer.voting.votes import load
from trainer.workers.workers import Workers

DECIDING = (
    "split", "groups", "group_size", "seed", "votes_by", "votes", "permute", "tie_margin", "vote_error",
    "vote_temperature",
)  # fmt: skip
"""The settings that decide which votes are cast."""


def ask(settings: AuditSettings, benchmarks: Sequence[Benchmark], stages: Stages) -> str:
    """Has the version that serves now vote on every benchmark's pairs. Returns that version.

    Raises:
        WrongVersion: another version was promoted meanwhile.
        Unreachable: no replica of the service answered for too long.
        ServiceError: the service refused an image.
        ValueError: the folder's votes were asked for with other settings.
        Occupied: another process is at work in it.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(settings.out):
        _keep_settings(settings)
        store = VersionStore(settings.store)
        with Workers(settings.operators, settings.operator_key(), store, settings.patience, stages.say) as workers:
            info = workers.info()
            for benchmark in benchmarks:
                _ask(settings, benchmark, workers, info, stages)
    return info.version


def figures(out: Path, order: Sequence[str]) -> dict[str, Any]:
    """What the folder's votes tell: benchmark -> its images, notes and versions, in `order`, those unknown to it first.

    A version's `changes` are those since the one before it.
    """
    return {
        "settings": read_json(out / "settings.json"),
        "benchmarks": {file.parent.name: _of_benchmark(file, order) for file in sorted(out.glob("*/pairs.json"))},
    }


def _keep_settings(settings: AuditSettings) -> None:
    file, now = settings.out / "settings.json", settings.model_dump(mode="json", include=set(DECIDING))
    began = read_json(file) if file.exists() else now
    changed = [
        f"--{name.replace('_', '-')} {now[name]} (was {began[name]})" for name in now if now[name] != began[name]
    ]
    if changed:
        raise UserError(
            f"the votes in {settings.out} were asked for with other settings: {', '.join(changed)}; go on with those, "
            "or give another --out"
        )
    write_json(file, now)


def _ask(settings: AuditSettings, benchmark: Benchmark, workers: Workers, info: InfoResponse, stages: Stages) -> None:
    folder = settings.out / benchmark.name
    asked = questions(
        benchmark, folder / "pairs.json", groups=settings.groups, size=settings.group_size, seed=settings.seed
    )
    votes = folder / "votes" / f"{info.version}.jsonl"
    with stages.stage(f"votes on {benchmark.name}", total=len(pairs_of(asked.groups)), unit="pairs") as advance:
        workers.call(_cast, settings, benchmark, asked, workers, info, votes, advance)


async def _cast(
    settings: AuditSettings,
    benchmark: Benchmark,
    asked: Questions,
    workers: Workers,
    info: InfoResponse,
    votes: Path,
    advance: Callable[[int], None],
) -> None:
    pairs = pairs_of(asked.groups)
    chosen = await choose_voter(
        settings, asked.pool(benchmark), workers.asynchronous, version=info.version, profile=PROFILES[info.profile],
        seed=settings.seed, probe=pairs[0],
    )  # fmt: skip
    await cast(pairs, chosen, votes, advance=advance)


def _of_benchmark(file: Path, order: Sequence[str]) -> dict[str, Any]:
    asked, places = kept(file), {version: place for place, version in enumerate(order)}
    files = sorted(file.parent.glob("votes/*.jsonl"), key=lambda votes: (places.get(votes.stem, -1), votes.stem))
    cast_by = {votes.stem: load(votes) for votes in files if load(votes)}
    versions: dict[str, Any] = {}
    before = None
    for version, votes in cast_by.items():
        shared = changes(before, votes, asked.truth) if before else None
        told = {"changes": asdict(shared) if shared else None}
        versions[version] = without_truth(votes, asked.groups) | beside_truth(votes, asked.truth) | told
        before = votes
    return {"images": len(asked.images), "notes": asked.notes, "versions": versions}
