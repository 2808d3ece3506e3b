"""The settings of evolution rounds: pool, training, gate, and the run itself; and those of a run's report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag

from trainer.pool.sources import paths
from trainer.settings.service import CONFIG, Count, Share, VoteSettings

_PLACES_AN_ORIGINAL = 4


class PoolSettings(BaseSettings):
    """The images of a round, their variants, and the groups they are compared in."""

    model_config = CONFIG

    pool: Path
    """The unlabelled images: a folder, a quoted pattern ('photos/**/*.jpg'), a list (.txt: one path a line), Parquet
    files (.parquet) or WebDataset shards ('shards-{000..127}.tar'). Millions are read as a stream."""
    follow_links: CliImplicitFlag[bool] = False
    """Enter linked folders of the pool too, each once. Otherwise a round's `unreadable.jsonl` lists them."""
    images: Count | None = None
    """Originals that each round draws anew from the pool. Default: one for every four places in its groups (the paper:
    10,000 for 20,000 pairs), or, with fewer than three variants, one for every 1 + --variants places; all if the pool
    has fewer."""
    pool_column: str | None = None
    """Column of the Parquet files with the images' bytes or paths. Default: the first of a suitable type."""

    pool_unreadable: Share = 0.5
    """Largest share of the pool that may be unreadable; beyond it the round stops before the votes. What is passed over
    is told, and listed in `unreadable.jsonl`."""

    pixels: Count = 1_048_576
    """Originals with more pixels are scaled down to this many when they are drawn, before they are distorted; or to the
    service's max_pixels, the model's resolution, if that is set and smaller."""
    variants: int = Field(default=10, ge=0, le=35)
    """Distorted variants made of each image (the paper: 10)."""
    groups: Count = 100
    """Groups of images compared with each other; each is one training step an epoch."""
    group_size: int = Field(default=12, ge=2, le=64)
    """Images a group, all paired: 12 give 66 pairs. In a training step they are each other's partners."""
    held_back_groups: int = Field(default=32, ge=1)
    """Groups that are voted on for the gate, and not trained on. With fewer the gate cannot tell small losses from
    chance, and refuses more candidates that are as good as the version before (tests/benchmarks/README.md#the-gate)."""
    pairs: Literal["random", "informative"] = "random"
    """Groups: at random, as in the paper, or of images that the model now scores alike. On the embedded model random
    groups gave more at equal votes (tests/benchmarks/README.md#votes)."""
    same_reference_share: Share = 0.5
    """From round 2 on: share of groups that compare the distortions of one original; none without variants."""

    @property
    def places(self) -> int:
        """Places for images in all groups of a round."""
        return (self.groups + self.held_back_groups) * self.group_size

    @property
    def originals(self) -> int:
        """The number of originals that a round draws, if the pool has as many."""
        return self.images or math.ceil(self.places / min(_PLACES_AN_ORIGINAL, 1 + self.variants))


class TrainingSettings(BaseSettings):
    """The online stage: labels, reward, policy, optimization and devices."""

    model_config = CONFIG

    labels: Literal["hard", "soft"] = "hard"
    """Labels of pairs: the majority of the votes, as in the paper, or (an ablation) their share. Soft labels need all K
    sampled votes, and leave --tie-margin to the gate."""
    reward: Literal["fidelity", "regression"] = "fidelity"
    """Reward of a sampled score: fidelity to the order of the votes, or (an ablation of the paper) nearness to the mean
    of the image's own scores, sampled before the training. The latter needs votes only for the gate."""
    samples: int = Field(default=16, ge=2, le=64)
    """K of the online stage: scores sampled for each image of a step (the paper: 32)."""
    epochs: Count = 1
    """Passes over the groups."""
    policy: Literal["lora", "full"] = "lora"
    """Weights under training: `lora` an adapter, sampled by the serving engine beside its users' requests; `full` all
    weights, as in the paper, sampled by a separate engine (`evoquality serve --role rollout`)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Of AdamW; after the warm-up it falls linearly to zero. Default: by the size of the model that the run starts
    from. Below 100 million parameters 1e-3 (policy full: 1e-4), chosen on the embedded model; above 1e-5 (full: 3e-7,
    the paper's for 7B)."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL penalty to the model the round started from (the paper: 0.05)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly to its value, before it falls."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest Euclidean norm of a step's gradients; longer ones are scaled down to it."""
    gamma: float = Field(default=0.01, ge=0)
    """Added to the variance in the Thurstone probability."""
    normalise: CliImplicitFlag[bool] = True
    """Divide advantages by their group's standard deviation, as the paper does."""
    cut_off: Literal["lowest", "masked"] = "lowest"
    """Answers that the token limit ends before they have a score: the lowest reward, as unreadable ones, so that the
    policy learns to end them; or masked, so that they take no part in the step (DAPO's overlong filtering), for a limit
    that good answers reach too."""
    loss: Literal["dapo", "gspo", "cispo", "sapo"] = "dapo"
    """Loss: the clip of DAPO (arXiv 2503.14476), one ratio an answer (GSPO, 2507.18071), a clipped weight on every
    token (CISPO, 2506.13585), or a soft gate (SAPO, 2511.20347)."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """Lower clip: ratio ≥ 1 − clip_low. Unset with loss gspo 0.0003, with cispo 1. SAPO clips nothing."""
    clip_high: float = Field(default=0.28, gt=0)
    """Upper clip: ratio ≤ 1 + clip_high. Unset with loss gspo 0.0004, with cispo 4."""
    truncation: float = Field(default=2.0, ge=1)
    """Losses dapo and gspo: largest weight of a token by its probability ratio (truncated importance sampling)."""
    overlap: CliImplicitFlag[bool] = True
    """Sample the next step's scores while this one updates, from the policy one step behind. Without: strictly
    on-policy, but slower."""
    tokens_per_pass: Count | None = None
    """Tokens in one forward and backward pass, of pictures, prompts and answers; fewer need less memory, with the same
    result. A picture whose answers are more is computed again for each part of them. Default: what fits the device,
    measured before the votes, at most 32,768."""
    rank: int = Field(default=32, ge=1, le=64)
    """Policy lora: rank of the adapter."""
    rollout_operator: str | None = None
    """Policy full: address of the rollout engine's operators' routes. Several: separated by commas."""
    handover: Path | None = None
    """Policy full: folder in which the rollout engine gets its weights, the same as its `--handover`; the run's last
    ones stay there. Default: handover in the store."""
    train_vision: CliImplicitFlag[bool] = False
    """Policy full: train the vision tower too. A high learning rate destroys it before the scores improve."""
    reference_device: str | None = None
    """Policy full, one process: device of the frozen model of the KL penalty, for example cpu. Default: --device."""
    checkpoint_every: Count = 10
    """Steps between the checkpoints a killed run resumes from."""
    device: str = "cpu"
    """Device of the torch policy, for example cuda:1; under torchrun cuda, one for each process."""
    threads: Count | None = None
    """Threads of the torch policy on CPU. Unset: half of the process's cores, the rest is for the service; torchrun's
    processes share them. Too many threads wait for each other longer than they work."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the passes through the policy. Weights under training stay float32. auto: bfloat16 on a GPU if the
    checkpoint has 16 bits; on a CPU if an adapter's model does not fit half of the memory in float32; else float32."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Compute activations again in the backward pass: less memory, a third more time, the same gradients. auto: where a
    step then takes less time, because larger passes fit; measured before the votes."""

    @model_validator(mode="before")
    @classmethod
    def _clip_by_loss(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The ratio of a whole answer differs far less from 1 than that of a token; CISPO bounds a weight only."""
        clips = {"gspo": {"clip_low": 3e-4, "clip_high": 4e-4}, "cispo": {"clip_low": 1.0, "clip_high": 4.0}}
        return {**clips.get(given.get("loss", ""), {}), **given}


class GateSettings(BaseSettings):
    """Limits of the votes, of the gate, of the check after a promotion, and of the collapse watch."""

    model_config = CONFIG

    gate_unreadable: Share = 0.05
    """Gate: largest increase of the share of unreadable scores. The demo's healthy rounds go from 2 to 4 % before to at
    most 5.4 % after; another draw of images already moves it by 1 %."""
    gate_agreement_loss: Share = 0.05
    """Gate: largest loss of agreement between the scores' order and the votes on held-back pairs. The candidate must
    show that it lost no more: the interval of its loss (68 %, paired bootstrap over pictures) must end below this. A
    healthy round with nothing left to learn ends within 1 or 2 % of its start; a random order agrees with half of the
    votes."""
    gate_spread: Share = 0.25
    """Gate: smallest spread of the scores, as a share of the spread before."""
    gate_largest_spread: float = Field(default=1.7, ge=0)
    """Gate: largest spread of the scores. Scores uniform from 1 to 5 have 1.15; ones and fives only have 2, the
    maximum. The demo's healthy rounds end at 1.1 to 1.4. A version that had more before may keep it."""
    gate_drift: float = Field(default=1.0, ge=0)
    """Gate: largest change of the mean score, on the scale of 1 to 5. The demo's healthy rounds: 0.5 at most."""
    gate_position_bias: Share = 0.1
    """Gate: largest increase of the preference for the image shown first, as a share of the votes. In the demo's
    healthy rounds it shrinks."""
    probe: Path | None = None
    """Gate: a labelled set, in a format of `evaluate --benchmarks`. Nothing is trained on it."""
    gate_probe_loss: Share = 0.02
    """Gate: largest loss of SRCC on the probe."""
    regression_drift: float = Field(default=0.25, ge=0)
    """After promotion: largest mean distance of the held-back images' scores from those at the gate. Beyond it, or
    beyond a limit of the gate, the previous version is promoted again."""

    base_unreadable: Share = 0.5
    """Before the votes: largest share of unreadable answers among those that the base gives first, about 20 pictures
    and 20 pairs of them. Beyond it, the base does not speak its profile."""
    mismatch: float | None = Field(default=None, gt=0)
    """Step 0: largest mean |ratio - 1| of the trainer's probabilities to the engine's, of the tokens that the engine
    sampled under the same weights. Gate: the same of the policy's to those of the candidate as written. Default: 0.02
    where engine and trainer compute in float32, 0.15 where one of them has 16 bits."""
    gate_kept: Share = 0.8
    """Gate: smallest share of what was learnt that the candidate's weights keep as written, measured on held-back
    answers. Rounding a small update to the nearest bfloat16 keeps less. What may have this share by chance passes."""

    least_decided: Share = 0.05
    """Before training: the votes must decide more than this share of the pairs."""

    collapse_window: Count = 5
    """Collapse watch: number of steps whose mean is compared with the limits below."""
    collapse_skipped: Count = 3
    """Collapse watch: steps in a row whose loss or gradients are not finite, at which the round stops. Such a step is
    skipped: it moves no weight."""
    collapse_entropy: float = Field(default=0.02, ge=0)
    """Collapse watch: smallest entropy of the answers, in nats a token. The demo's healthy rounds: 0.3 at least."""
    collapse_spread: float = Field(default=0.01, ge=0)
    """Collapse watch: smallest spread of a step's mean scores. The demo's healthy rounds: 0.5 at least."""
    collapse_constant: Share = 0.9
    """Collapse watch: largest share of images whose answers are all equal."""
    collapse_unreadable: Share = 0.5
    """Collapse watch: largest share of answers without a score, unreadable or cut off. The demo's healthy rounds: 9 %
    at most."""
    collapse_kl: float = Field(default=3, ge=0)
    """Collapse watch: largest KL divergence from the model the round started from, in nats a token. The demo's healthy
    rounds reach 1.2."""


_MISMATCH = {True: 0.02, False: 0.15}
"""In float32, and with 16 bits: random models of 28 layers, whose logits spread more than those of trained ones, have
0.1."""


class EvolveSettings(GateSettings, TrainingSettings, VoteSettings, PoolSettings):
    """Runs evolution rounds: pool, pairs, votes, GRPO, gate, promotion, report. A killed run resumes."""

    run: Path
    """The run's folder: labels, metrics, checkpoints, reports. Give the same folder to resume."""
    base: str | None = None
    """Version that the first round starts from; it is promoted first if another one serves. Default: the active one."""
    rounds: Count = 2
    """Rounds; each starts from the version that the one before promoted."""
    dry_run: CliImplicitFlag[bool] = False
    """Only show the cost of the run: images, votes, rollouts, steps, and, measured on a few groups against the running
    service, hours and disk. Nothing is kept."""
    price: Path | None = None
    """With --dry-run: also write the cost to this JSON file."""

    tensorboard: CliImplicitFlag[bool] = True
    """Write TensorBoard's event files; view them with `tensorboard --logdir <run>/tensorboard`."""
    mlflow: str | None = None
    """Tracking URI of an MLflow server: one MLflow run for each round, in the experiment `evoquality`."""

    def most_mismatch(self, served: str) -> float:
        """The limit `mismatch` beside an engine of this dtype."""
        return self.mismatch or _MISMATCH[served == self.dtype == "float32"]

    @property
    def stopping_error(self) -> float | None:
        """None for soft labels: votes that stopped early have a more extreme share than all K."""
        return None if self.labels == "soft" else self.vote_error

    @model_validator(mode="after")
    def _pool_exists(self) -> EvolveSettings:
        drawn = any(self.run.glob("round-*/pool.jsonl"))  # a round needs nothing of the pool after that
        if not drawn and not any(path.exists() for path, _ in paths(self.pool, self.follow_links)):
            raise ValueError(
                f"the pool {self.pool} is not a folder, list, Parquet file or shard, nor a pattern that matches one; "
                "name one that holds your images"
            )
        return self

    @model_validator(mode="after")
    def _has_an_engine_to_overwrite(self) -> EvolveSettings:
        if self.policy == "full" and self.rollout_operator is None:
            raise ValueError(
                "policy full needs an engine whose weights it may overwrite: start one on the same store with "
                "`evoquality serve --role rollout` and name its operators' address with --rollout-operator"
            )
        return self


class ReportSettings(BaseSettings):
    """The run to report."""

    model_config = CONFIG

    run: Path
    """The run's folder."""

    @model_validator(mode="after")
    def _is_a_run(self) -> ReportSettings:
        if not (self.run / "settings.json").is_file():
            raise ValueError(
                f"{self.run} is not the folder of a run: it has no settings.json, which a run writes first; name the "
                "folder that was given to `evolve --run`"
            )
        return self
