"""The gate: may the candidate serve? The policy is judged as the engine samples from it, then its weights as they are
written: `gate.json`. The candidate enters the version store in any case, marked if it was refused: `candidate.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from evoquality.contract import RolloutResult, VersionInfo
from service.prompts import Profile
from trainer.files import write_json, writing
from trainer.leftovers import run_id
from trainer.promotion import criteria, kept
from trainer.promotion.behaviour import Observer
from trainer.promotion.criteria import Criterion, Verdict
from trainer.stages.context import RoundContext
from trainer.training.handover import Handover
from trainer.training.learner import Learner
from trainer.training.rollouts import Served, sample_scores
from trainer.workers.workers import Workers

_COMPARED = 8
"""Held-back images whose answers compare the written weights with the policy."""
Answers = dict[str, RolloutResult]
"""The policy's answers to the score prompt, by image."""
GateProbe = Callable[[Served, Workers, Profile], float]
"""The SRCC of a version, or of an adapter on it, on a labelled set that the round itself cannot see."""


def run_gate(
    context: RoundContext, learner: Learner, handover: Handover, observer: Observer, probe: GateProbe | None
) -> None:
    """Compares the candidate with the version it came from, and adds it to the store.

    Raises:
        DiskFull: the candidate could not be written.
    """
    with context.stage("gate"):
        verdict, answers = _verdict(context, learner, handover, observer, probe)
    with context.stage("candidate"), _written(context, learner) as folder:
        if answers:
            verdict.criteria.extend(_as_written(context, learner, handover, observer, folder, answers))
        write_json(context.folder / "gate.json", verdict.as_dict())
        candidate = _add_candidate(context, folder, verdict)
        if not verdict.passed:
            context.store.refuse(candidate.id, "; ".join(verdict.reasons))
        write_json(context.folder / "candidate.json", candidate.model_dump(mode="json"))


def _verdict(
    context: RoundContext, learner: Learner, handover: Handover, observer: Observer, probe: GateProbe | None
) -> tuple[Verdict, Answers]:
    """The verdict on the policy as it is sampled, and its answers about some held-back images; none without finite
    weights."""
    base = Served(context.base)
    before = observer.observe(base, context.workers)
    if not learner.is_finite():
        return Verdict(before, None, [criteria.finite_weights(False)]), {}
    with handover.served(learner, "gate") as served:
        verdict = criteria.judge(before, observer.observe(served, handover.workers), observer.decided, context.settings)
        if probe:
            was, now = probe(base, context.workers, context.profile), probe(served, handover.workers, context.profile)
            verdict.criteria.append(criteria.probe(was, now, context.settings))
        images = list(dict.fromkeys(chain.from_iterable(observer.groups)))[:_COMPARED]
        seed, samples = observer.seed, observer.samples
        workers, pool = handover.workers, observer.pool  # with the prompts' tokens, which torch compares with its own
        answers = sample_scores(workers, pool, images, served, samples=samples, seed=seed, logprobs=True)
    return verdict, dict(zip(images, answers, strict=True))


def _as_written(
    context: RoundContext, learner: Learner, handover: Handover, observer: Observer, folder: Path, answers: Answers
) -> list[Criterion]:
    """The criteria of the weights in the folder, on those answers."""
    shown = {image: observer.pool.open(image) for image in answers}
    found = learner.compare(folder, shown, list(answers.values()))
    limit = context.settings.most_mismatch(handover.workers.info().dtype)
    return kept.criteria(found, most_apart=limit, least_kept=context.settings.gate_kept)


@contextmanager
def _written(context: RoundContext, learner: Learner) -> Iterator[Path]:
    """The policy as a complete checkpoint, in a folder of the store for the block."""
    store, name = context.store, f"{run_id(context.settings.run)}-candidate"
    with writing(store.root / name), TemporaryDirectory(dir=store.root, prefix=f".{name}-") as folder:
        learner.save_checkpoint(Path(folder))
        yield Path(folder)


def _add_candidate(context: RoundContext, folder: Path, verdict: Verdict) -> VersionInfo:
    """Adds the checkpoint in the folder to the store."""
    figures = verdict.after.figures() if verdict.after else {}
    return context.store.add(
        folder,
        parent=context.base,
        profile=context.profile.name,
        origin=f"evolve round {context.number}",
        metrics={f"gate_{name}": value for name, value in figures.items()},
        config=context.settings.model_dump(mode="json"),
    )
