"""One evolution round as a list of stages (`trainer/stages/`). Each is done once; its file marks it as done.

    start.json      the version and the settings it began with
    pool.jsonl      the originals drawn and their distorted variants
    pairs.json      groups to train on and groups held back for the gate
    answers.json    the base's first answers: does it speak its profile?
    self_check.json how log-probabilities are computed, and how far they are from the model's own
    memory.json     what of a step goes into one pass, measured
    votes.jsonl     the votes on each pair, appended as they come; votes.done ends the stage; mean_scores.json for the
                    ablation that regresses to them
    train/          steps.jsonl, checkpoint.pt; collapse.json if it was stopped
    gate.json       the gate's verdict on the candidate
    candidate.json  the merged checkpoint in the version store
    promoting.json  the store's pointer before the swap
    promotion.json  the hot swap; rollback.json if it was taken back

A killed round that is started again with the same folder resumes where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.files import read_json
from trainer.pool.pool import Pool
from trainer.promotion.behaviour import SAMPLES, Observer
from trainer.reporting.trackers import Trackers
from trainer.stages.base import check_answers
from trainer.stages.context import RoundContext
from trainer.stages.fit import check_policy, fit_memory
from trainer.stages.gate import GateProbe, run_gate
from trainer.stages.offline import ask_votes, check_decided, check_gate, draw_groups, draw_pool, make_variants
from trainer.stages.promote import promote
from trainer.stages.start import start
from trainer.stages.train import learning, reward_target, train
from trainer.training.reward import Target
from trainer.training.rollouts import Served
from trainer.voting.groups import Group
from trainer.voting.votes import labels_of


@dataclass(frozen=True)
class Round(RoundContext):
    """Round `number` (from 1) of a run."""

    trackers: Trackers
    probe: GateProbe | None = None

    @property
    def promoted(self) -> str | None:
        """The version that it promoted, once it is done."""
        done = self.folder / "promotion.json"
        return str(read_json(done)["version"]) if done.exists() else None

    def run(self) -> None:
        """Runs the stages that are not done yet; the round has started (`stages.start`).

        Raises:
            GateRefused: the candidate failed the gate; its verdict is in `gate.json`.
            Regressed: the promoted version is not what the gate saw, and was rolled back; see `rollback.json`.
            Collapsed: the policy collapsed in training.
            WrongVersion: somebody else promoted a version since the round began.
            Unreachable: no replica of the service answered for too long.
            NothingToLearn: the votes, or the policy's own answers, give no reward to learn from.
            UnsupportedModel: the trainer does not compute what the model does.
            EngineMismatch: engine and trainer disagree under the same weights.
            WrongProfile: the base does not answer in the format of its profile.
        """
        images, training, observer, target = self._prepare()
        if not (self.folder / "candidate.json").exists():
            with learning(self) as (policy, handover):
                check_policy(self, policy, images.open(training[0][0]))
                train(self, policy, handover, images, training, target, self.trackers)
                run_gate(self, policy, handover, observer, self.probe)
        promote(self, observer)

    def rehearse(self) -> None:
        """The stages for a dry run, which change nothing outside the run's folder; the gate observes only the base."""
        start(self)
        images, training, observer, target = self._prepare()
        with learning(self) as (policy, handover):
            check_policy(self, policy, images.open(training[0][0]))
            train(self, policy, handover, images, training, target, self.trackers)
            with self.stage("gate"):
                observer.observe(Served(self.base), self.workers)
            with self.stage("candidate"):
                (self.folder / "candidate").mkdir()
                policy.save_checkpoint(self.folder / "candidate")

    def _prepare(self) -> tuple[Pool, list[Group], Observer, Target]:
        """The pool, the groups to train on, the gate's observer of those held back, and the reward's target."""
        images = draw_pool(self)
        training, held_back = draw_groups(self, images)
        make_variants(self, images, [*training, *held_back])
        check_answers(self, images, [*training, *held_back])
        fit_memory(self, images, training)
        voted = held_back if self.settings.reward == "regression" else [*training, *held_back]
        votes = ask_votes(self, images, voted)
        if self.settings.reward == "fidelity":
            check_decided(self, training, votes)
        check_gate(self, held_back, votes)
        samples = min(SAMPLES, self.settings.samples)
        observer = Observer(images, held_back, labels_of(votes), self.profile, samples, self.seed)
        return images, training, observer, reward_target(self, images, training, votes)
