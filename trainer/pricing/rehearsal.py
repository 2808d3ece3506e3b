"""A round in miniature, in a temporary folder against the running service: measures the cost of one of everything."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from service.versions.store import VersionStore
from trainer.files import built, read_json
from trainer.leftovers import folder_lock
from trainer.pool.pool import Pool, content_id
from trainer.pool.sources import Sources
from trainer.progress import Stages, stage_times
from trainer.promotion.behaviour import answers_of_one_look
from trainer.reporting.rounds import steps
from trainer.reporting.trackers import Trackers
from trainer.round import Round
from trainer.settings.evolve import EvolveSettings
from trainer.training.fit import Fit
from trainer.voting.votes import load
from trainer.workers.workers import Workers

_ORIGINALS = 8
_FEW = {"groups": 3, "held_back_groups": 1, "epochs": 1, "same_reference_share": 0.0, "pool_unreadable": 1.0}
"""The second of three steps is typical of many: rollouts overlap its update. No groups of one original, which may be
smaller than the others."""
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds and bytes of one of each."""

    exact: bool
    """True if votes are exact."""
    votes_a_pair: float
    file_seconds: float
    variant_seconds: float
    pair_seconds: float
    step_seconds: float
    answer_seconds: float
    """A sampled answer to a question of the gate."""
    candidate_seconds: float
    original_bytes: float
    variant_bytes: float
    pair_bytes: float
    checkpoint_bytes: int
    candidate_bytes: int
    memory: Fit


def rehearse(settings: EvolveSettings, sources: Sources) -> Rates:
    """Runs a few groups through a round up to the candidate, twice: the second time all caches are warm.

    Raises:
        Unreachable, ServiceError, WrongProfile, WrongVersion, UserError: as a round does.
        Occupied: another trainer is at work on the store.
    """
    with TemporaryDirectory(prefix="evoquality-dry-run-") as folder:
        small = _small(settings, sources, Path(folder))
        stages, store = Stages(small.run / "stages.jsonl"), VersionStore(settings.store)
        with (
            folder_lock(store.root, _PATIENCE_S, stages.say),
            Workers(
                small.operators,
                settings.operator_key(),
                store,
                _PATIENCE_S,
                stages.say,
                max_answer_tokens=settings.max_answer_tokens,
            ) as workers,
        ):
            warming, miniature = (Round(number, small, workers, stages, Trackers([], stages.say)) for number in (1, 2))
            warming.rehearse()
            miniature.rehearse()
        return _rates(small, miniature, store)


def _small(settings: EvolveSettings, sources: Sources, folder: Path) -> EvolveSettings:
    """The settings of the miniature, over a pool of the first few images."""
    wanted = max(_ORIGINALS, ceil(settings.group_size / (1 + settings.variants)))
    (folder / "pool").mkdir()
    (folder / "run").mkdir()
    for entry in sources:
        with suppress(OSError):
            data = entry.read()
            (folder / "pool" / f"{content_id(data)}.jpg").write_bytes(data)
            wanted -= 1
        if wanted == 0:
            break
    return settings.model_copy(update={"pool": folder / "pool", "run": folder / "run", "base": None, **_FEW})


def _rates(small: EvolveSettings, miniature: Round, store: VersionStore) -> Rates:
    times = stage_times(small.run / "stages.jsonl")
    seconds = {row["stage"].partition(": ")[2]: row["ended"] - row["began"] for row in times}
    making = sum(row["ended"] - row["began"] for row in times if row["stage"].endswith(": variants"))  # of both rounds
    votes, step = load(miniature.folder / "votes.jsonl"), steps(miniature.folder)[1]
    originals = [Path(image.path) for image in Pool.load(miniature.folder / "pool.jsonl").images if image.kind is None]
    variants = list((small.run / "variants").glob("*"))
    return Rates(
        exact=votes[0].by == "exact",
        votes_a_pair=sum(vote.asked for vote in votes) / len(votes),
        file_seconds=seconds["pool"] / len(originals),
        variant_seconds=making / max(1, len(variants)),
        pair_seconds=seconds["votes"] / len(votes),
        step_seconds=step["step_seconds"],
        answer_seconds=seconds["gate"] / answers_of_one_look(small, small.held_back_groups * small.group_size),
        candidate_seconds=seconds["candidate"],
        original_bytes=_mean_size(originals),
        variant_bytes=_mean_size(variants),
        pair_bytes=(miniature.folder / "votes.jsonl").stat().st_size / len(votes),
        checkpoint_bytes=(miniature.folder / "train" / "checkpoint.pt").stat().st_size,
        candidate_bytes=sum(file.stat().st_size for file in store.path(miniature.base).rglob("*")),
        memory=built(Fit, read_json(miniature.folder / "memory.json")),
    )


def _mean_size(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / max(1, len(files))
