"""One evolution round as a list of stages, each done once: its file in the round's folder says that it is.

    pool.jsonl      the originals drawn and their distorted variants
    pairs.json      groups to train on and groups held back for the gate
    votes.jsonl     the votes on each pair, appended as they come;  votes.done ends the stage
    train/          steps.jsonl, checkpoint.pt;              train.json ends the stage
    gate.json       may the candidate serve?
    candidate.json  the merged checkpoint in the version store
    promotion.json  the hot swap;                            rollback.json if it was taken back

Kill it anywhere and start it again with the same folder: it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from service.images.picture import FORMATS, Limits, take_heif
from service.prompts import PROFILES, Profile
from service.versions import refusals
from service.versions.store import VersionStore
from trainer.errors import Collapsed, GateRefused, Regressed, WrongVersion
from trainer.files import read_json, write_json
from trainer.leftovers import run_id
from trainer.pool.build import build
from trainer.pool.pool import Pool
from trainer.pool.sources import Sources
from trainer.progress import Stages
from trainer.promotion import candidate, gate
from trainer.promotion.behaviour import Behaviour, Observer
from trainer.reporting.trackers import Trackers
from trainer.settings import EvolveSettings
from trainer.training import distributed, learner, scores
from trainer.training.handover import Handover, handover
from trainer.training.learner import Learner
from trainer.training.online import OnlineStage
from trainer.training.served import Served
from trainer.voting import informative, pairs, vote, voter
from trainer.voting.cast import cast
from trainer.voting.pairs import Group
from trainer.workers.workers import Workers

Probe = Callable[[Served, Workers, Profile], float]
"""The SRCC of a version, or of an adapter on it, on a labelled set that the round itself cannot see."""


@dataclass(frozen=True)
class Round:
    """Round `number` (from 1) of a run."""

    number: int
    settings: EvolveSettings
    workers: Workers
    stages: Stages
    trackers: Trackers
    probe: Probe | None = None

    def run(self) -> None:
        """Runs what is not done yet.

        Raises:
            GateRefused: the candidate failed the gate; its verdict is in `gate.json`.
            Regressed: the promoted version is not what the gate saw, and was rolled back; see `rollback.json`.
            Collapsed: the policy collapsed in training.
            WrongVersion: somebody else promoted a version since the round began.
            Unreachable: no replica of the service answered for too long.
        """
        if (self.folder / "promotion.json").exists():
            return
        images, training, held_back, labels = self._labelled()
        observer = self._observer(images, held_back, labels)
        self._train_and_judge(images, training, labels, observer)
        self._promote(observer)

    def rehearse(self) -> None:
        """What changes nothing outside the run's folder, for a dry run; of the gate what it asks of the base."""
        images, training, held_back, labels = self._labelled()
        with self._learner() as (learning, way):
            self._train(learning, way, images, training, labels)
            with self.stages.stage(f"round {self.number}: gate", total=None):
                self._observer(images, held_back, labels).observe(Served(self.base), self.workers)
            with self.stages.stage(f"round {self.number}: candidate", total=None):
                (self.folder / "candidate").mkdir()
                learning.save_checkpoint(self.folder / "candidate")

    @property
    def folder(self) -> Path:
        """Where the round keeps its files."""
        return self.settings.run / f"round-{self.number}"

    @property
    def seed(self) -> int:
        """The round's own seed."""
        return self.settings.seed * 1000 + self.number

    @cached_property
    def store(self) -> VersionStore:
        """The store that service and trainer share."""
        return VersionStore(self.settings.store)

    @cached_property
    def base(self) -> str:
        """The version the round starts from."""
        return str(read_json(self.folder / "start.json")["version"])

    @cached_property
    def profile(self) -> Profile:
        """How that version answers."""
        return PROFILES[self.store.info(self.base).profile]

    def _labelled(self) -> tuple[Pool, list[Group], list[Group], dict[vote.Pair, float]]:
        """The pool, the groups to train on and those held back, and their pairs' labels."""
        self._start()
        images = self._pool()
        training, held_back = self._groups(images)
        self._make_variants(images, [*training, *held_back])
        return images, training, held_back, vote.labels_of(self._votes(images, [*training, *held_back]))

    def _observer(self, images: Pool, held_back: list[Group], labels: dict[vote.Pair, float]) -> Observer:
        return Observer(images, held_back, labels, self.profile, self.settings.samples, self.seed)

    def _start(self) -> None:
        """Writes down the version to start from; on a resume, checks that it is still the one that serves."""
        serving = self.workers.versions()
        file = self.folder / "start.json"
        if not file.exists():
            write_json(file, {"version": next(iter(serving.values())), "seed": self.seed})
        made = self.folder / "candidate.json"
        allowed = {self.base, read_json(made)["id"] if made.exists() else self.base}
        if allowed.isdisjoint(serving.values()):
            now = ", ".join(sorted(set(serving.values())))
            raise WrongVersion(
                f"round {self.number} started from {self.base}, but the service serves {now} now; promote "
                f"{self.base} again to resume, or start a new run"
            )

    def _pool(self) -> Pool:
        manifest = self.folder / "pool.jsonl"
        if manifest.exists():
            return Pool.load(manifest)
        s, limits = self.settings, self._limits()
        sources = Sources(s.pool, limits.max_bytes, s.pool_column, without=s.run)
        with self.stages.stage(f"round {self.number}: pool", total=None, unit="images") as advance:
            images, _ = build(
                sources, self.folder, images=s.originals, variants=s.variants, limits=limits, draw_seed=self.seed,
                variant_seed=s.seed, advance=advance,
            )  # fmt: skip
        return images

    def _limits(self) -> Limits:
        """Which images the service takes."""
        info = self.workers.info()
        return Limits(
            max_pixels=info.max_image_pixels, min_side=info.min_image_side, max_side=info.max_image_side,
            max_bytes=info.max_upload_bytes, formats=take_heif() if "HEIC" in info.formats else FORMATS,
        )  # fmt: skip

    def _make_variants(self, images: Pool, groups: Sequence[Group]) -> None:
        """Those that the round uses."""
        missing = images.missing(image for group in groups for image in group)
        if missing:
            total, name = len(missing), f"round {self.number}: variants"
            with self.stages.stage(name, total=total, unit="images") as advance:
                images.make(missing, advance)

    def _groups(self, images: Pool) -> tuple[list[Group], list[Group]]:
        file = self.folder / "pairs.json"
        if not file.exists():
            s = self.settings
            same = round(s.groups * s.same_reference_share) if self.number > 1 and s.variants else 0
            mixed = pairs.random_groups(images, s.groups - same + s.held_back_groups, s.group_size, self.seed)
            held_back, training = mixed[: s.held_back_groups], mixed[s.held_back_groups :]
            if s.pairs == "informative" and training:
                training = self._informative_groups(images, len(training))
            training = training + pairs.same_reference_groups(images, same, s.group_size, self.seed)
            write_json(file, {"training": pairs.shuffled(training, self.seed), "held_back": held_back})
        groups = read_json(file)
        return groups["training"], groups["held_back"]

    def _informative_groups(self, images: Pool, count: int) -> list[Group]:
        """Groups by the scores that the model gives now."""
        drawn = informative.drawn(images, count, self.settings.group_size, self.seed)
        self._make_variants(images, [drawn])
        with self.stages.stage(f"round {self.number}: scores", total=None):
            answers = scores.sample(
                self.workers, images, drawn, Served(self.base), samples=informative.SAMPLES, seed=self.seed
            )
        strength = informative.strengths(drawn, scores.to_scores(answers, self.profile))
        return informative.chained_groups(strength, count, self.settings.group_size, self.seed)

    def _votes(self, images: Pool, groups: Sequence[Group]) -> list[vote.PairVotes]:
        votes, done = self.folder / "votes.jsonl", self.folder / "votes.done"
        if not done.exists():
            asked = pairs.pairs_of(groups)
            with self.stages.stage(f"round {self.number}: votes", total=len(asked), unit="pairs") as advance:
                self._cast(asked, images, votes, advance)
            write_json(done, {"pairs": len(asked)})
        return vote.load(votes)

    def _cast(self, asked: list[vote.Pair], images: Pool, file: Path, advance: Any) -> None:
        self.workers.call(partial(self._cast_asynchronously, asked, images, file, advance))

    async def _cast_asynchronously(self, asked: list[vote.Pair], images: Pool, file: Path, advance: Any) -> None:
        chosen = await voter.choose(
            self.settings, images, self.workers.asynchronous, version=self.base, profile=self.profile,
            seed=self.seed, probe=asked[0],
        )  # fmt: skip
        await cast(asked, chosen, file, advance=advance)

    def _train_and_judge(
        self, images: Pool, training: list[Group], labels: dict[vote.Pair, float], observer: Observer
    ) -> None:
        """Trains, asks the gate, and adds the candidate to the store in any case; a refused one is marked."""
        if (self.folder / "candidate.json").exists():
            return
        if (self.folder / "collapse.json").exists():
            raise Collapsed(read_json(self.folder / "collapse.json")["reason"])
        with self._learner() as (learning, way):
            try:
                self._train(learning, way, images, training, labels)
            except Collapsed as collapsed:
                write_json(self.folder / "collapse.json", {"reason": str(collapsed)})
                raise
            with self.stages.stage(f"round {self.number}: gate", total=None):
                verdict = self._ask_gate(learning, way, observer)
            write_json(self.folder / "gate.json", verdict.as_dict())
            with self.stages.stage(f"round {self.number}: candidate", total=None):
                self._add_candidate(learning, verdict)

    @contextmanager
    def _learner(self) -> Iterator[tuple[Learner, Handover]]:
        """What is trained, and its way to the engine."""
        s = self.settings
        with handover(s, self.workers, self.store, self.base, self.stages.say) as way:
            engine, version = way.workers.info(), self.store.path(self.base)
            with distributed.built(learner.begin, version, self.profile, s, self.seed, engine) as learning:
                yield learning, way

    def _add_candidate(self, learning: Learner, verdict: gate.Verdict) -> None:
        info = candidate.add_candidate(
            learning, self.store, label=f"{run_id(self.settings.run)}-candidate", parent=self.base,
            profile=self.profile.name, origin=f"evolve round {self.number}",
            metrics={f"gate_{name}": value for name, value in verdict.after.figures().items()} if verdict.after else {},
            config=self.settings.model_dump(mode="json"),
        )  # fmt: skip
        if not verdict.passed:
            refusals.refuse(self.store, info.id, "; ".join(verdict.reasons))
        write_json(self.folder / "candidate.json", info.model_dump(mode="json"))

    def _train(
        self, learning: Learner, way: Handover, images: Pool, groups: list[Group], labels: dict[vote.Pair, float]
    ) -> None:
        s = self.settings
        stage = OnlineStage(learning, images, labels, self.profile, way, s, self.seed, self.folder / "train")
        with self.stages.stage(f"round {self.number}: GRPO", total=len(groups) * s.epochs, unit="steps") as advance:

            def follow(metrics: dict[str, Any] | None, steps: int) -> None:
                advance(steps, _summary(metrics))
                self.trackers.follow(self.number, metrics, steps)

            stage.run(groups, follow)

    def _ask_gate(self, learning: Learner, way: Handover, observer: Observer) -> gate.Verdict:
        before = observer.observe(Served(self.base), self.workers)
        if not learning.is_finite():
            return gate.Verdict(before, None, [gate.finite_weights(False)])
        with way.served(learning, "gate") as served:
            verdict = gate.judge(before, observer.observe(served, way.workers), self.settings)
            if self.probe:
                was = self.probe(Served(self.base), self.workers, self.profile)
                now = self.probe(served, way.workers, self.profile)
                verdict.criteria.append(gate.probe(was, now, self.settings))
        return verdict

    def _promote(self, observer: Observer) -> None:
        """Swaps the candidate in and looks at it once more; what is not as the gate saw it is swapped out again."""
        verdict = read_json(self.folder / "gate.json")
        if not verdict["passed"]:
            raise GateRefused(f"round {self.number}: the candidate may not serve: " + "; ".join(verdict["reasons"]))
        version = read_json(self.folder / "candidate.json")["id"]
        rollback = self.folder / "rollback.json"
        if not rollback.exists():
            with self.stages.stage(f"round {self.number}: promotion", total=None):
                swap, behind = self.workers.promote(version)
                promoted = observer.observe(Served(version), self.workers)
            for replica in behind:
                self.stages.say(f"{replica} did not follow to {version}: promote it there, or restart that replica")
            reasons = gate.regressions(Behaviour(**verdict["after"]), promoted, self.settings)
            if not reasons:
                write_json(self.folder / "promotion.json", {**swap.model_dump(mode="json"), "behind": behind})
                return
            refusals.refuse(self.store, version, "after its promotion " + "; ".join(reasons))
            write_json(rollback, {"version": version, "reason": "; ".join(reasons), "promoted": asdict(promoted)})
        self.workers.promote(self.base)
        reason = read_json(rollback)["reason"]
        raise Regressed(f"round {self.number}: {version} was rolled back to {self.base}: {reason}")


def _summary(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return ""
    return f"reward {metrics['reward']:.3f}  KL {metrics['kl']:.3f}  unreadable {metrics['unreadable']:.1%}"
