"""Audits votes on labelled benchmarks: the running service votes on pairs of their images, as in a round.

    settings.json                     settings that decide the votes, the same for every version audited in the folder
    <benchmark>/pairs.json            groups of images, and their truth
    <benchmark>/votes/<version>.jsonl votes, appended as they come

A killed audit resumes. With all votes present only the figures are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evoquality.contract import InfoResponse
from service.prompts import PROFILES
from service.versions.store import VersionStore
from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.pseudo_labels.accuracy import changes
from trainer.evaluation.pseudo_labels.figures import beside_truth, without_truth
from trainer.files import built, read_json, write_json
from trainer.leftovers import folder_lock
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.progress import Stages
from trainer.settings.evaluate import AuditSettings
from trainer.voting.groups import Group, pairs_of, random_groups
from trainer.voting.voters import cast, choose_voter
from trainer.voting.votes import load
from trainer.workers.workers import Workers

DECIDING = (
    "split",
    "groups",
    "group_size",
    "seed",
    "votes_by",
    "votes",
    "permute",
    "tie_margin",
    "vote_error",
    "vote_temperature",
)
"""Settings that decide which votes are cast."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Groups of images to vote on; images by their content ids."""

    groups: list[Group]
    truth: dict[str, float]
    """Image -> mean opinion score; higher is better."""
    images: dict[str, str]
    """Image -> id in the benchmark."""
    notes: list[str]
    """Remarks on the benchmark."""

    def pool(self, benchmark: Benchmark) -> Pool:
        """The images as the originals of a round's pool."""
        return Pool([PoolImage(image, str(benchmark.root / id), image) for image, id in self.images.items()])


def questions(benchmark: Benchmark, file: Path, *, groups: int, size: int, seed: int) -> Questions:
    """Reads the questions in `file`, or draws and writes them. Raises UserError for fewer than two images."""
    if not file.exists():
        write_json(file, asdict(_drawn(benchmark, groups, size, seed)))
    return kept(file)


def kept(file: Path) -> Questions:
    """Reads drawn questions."""
    return built(Questions, read_json(file))


def _drawn(benchmark: Benchmark, count: int, size: int, seed: int) -> Questions:
    """Draws as many images as the groups have places; a smaller set forms one group."""
    rows = np.random.default_rng((seed, 4)).permutation(len(benchmark.ids))[: count * size].tolist()
    contents = {content_id((benchmark.root / benchmark.ids[row]).read_bytes()): row for row in rows}
    if len(contents) < 2:
        raise UserError(f"{benchmark.name} has fewer than two different images, so no pair to vote on")
    pool = Pool([PoolImage(content, "", content) for content in contents])
    return Questions(
        groups=random_groups(pool, count, min(size, len(contents)), seed),
        truth={content: float(benchmark.mos[row]) for content, row in contents.items()},
        images={content: benchmark.ids[row] for content, row in contents.items()},
        notes=list(benchmark.notes),
    )


def ask(settings: AuditSettings, benchmarks: Sequence[Benchmark], stages: Stages) -> str:
    """Collects votes of the served version on every benchmark's pairs. Returns the version.

    Raises:
        WrongVersion: another version was promoted meanwhile.
        Unreachable: no replica of the service answered within the patience.
        ServiceError: the service refused an image.
        UserError: the folder's votes were cast with other settings.
        Occupied: another process works in the folder.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(settings.out):
        _keep_settings(settings)
        store = VersionStore(settings.store)
        key, limit = settings.operator_key(), settings.max_answer_tokens
        with Workers(settings.operators, key, store, settings.patience, stages.say, max_answer_tokens=limit) as workers:
            info = workers.info()
            for benchmark in benchmarks:
                _ask(settings, benchmark, workers, info, stages)
    return info.version


def figures(out: Path, order: Sequence[str]) -> dict[str, Any]:
    """Figures of the folder's votes: benchmark -> images, notes and versions. `order`: version ids; others come first.

    A version's `changes` are relative to the previous version.
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
            f"the votes in {settings.out} were cast with other settings: {', '.join(changed)}; use the same settings "
            "or another folder with --out"
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
        settings,
        asked.pool(benchmark),
        workers.asynchronous,
        version=info.version,
        profile=PROFILES[info.profile],
        seed=settings.seed,
        pairs=pairs,
    )
    await cast(pairs, chosen, votes, advance=advance)


def _of_benchmark(file: Path, order: Sequence[str]) -> dict[str, Any]:
    asked, places = kept(file), {version: place for place, version in enumerate(order)}
    files = sorted(file.parent.glob("votes/*.jsonl"), key=lambda votes: (places.get(votes.stem, -1), votes.stem))
    cast_by = {votes.stem: load(votes) for votes in files if load(votes)}
    versions: dict[str, Any] = {}
    before = None
    for version, votes in cast_by.items():
        shared = changes(before, votes, asked.truth) if before else None
        versions[version] = without_truth(votes, asked.groups) | beside_truth(votes, asked.truth)
        versions[version]["changes"] = asdict(shared) if shared else None
        before = votes
    return {"images": len(asked.images), "notes": asked.notes, "versions": versions}
