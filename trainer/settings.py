"""How an evolution is run: flags of `evoquality-trainer evolve`, or environment variables `EVOQUALITY_TRAINER_*`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, NoDecode, SettingsConfigDict

from service.prompts import ProfileName
from trainer.evaluation.protocol import Mode, Protocol, Split
from trainer.pool.sources import paths

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]

_PLACES_AN_ORIGINAL = 4
_MOST_IN_ONE_ORDER = 64


class ServiceSettings(BaseSettings):
    """Where the service is."""

    model_config = SettingsConfigDict(
        env_prefix="EVOQUALITY_TRAINER_", extra="forbid", use_attribute_docstrings=True, cli_kebab_case=True
    )

    operator: str = "http://127.0.0.1:8001"
    """Address of the service's operators' and internal routes. Of several replicas on one store: separated by commas;
    votes and rollouts are spread over those that answer, and a promotion goes to all."""
    store: Path = Path("store")
    """The version store, on the volume that service and trainer share."""
    operator_key_file: Path | None = None
    """File with the operators' key. Default: operator.key in the store."""

    @property
    def operators(self) -> list[str]:
        """The replicas' addresses."""
        return [url.strip() for url in self.operator.split(",") if url.strip()]

    def operator_key(self) -> str:
        """The operators' key. Raises ValueError if its file cannot be read."""
        file = self.operator_key_file or self.store / "operator.key"
        try:
            return file.read_text().strip()
        except OSError:
            raise ValueError(
                f"the operators' key {file} cannot be read; --store must be the running service's store, "
                "or name the key's file with --operator-key-file"
            ) from None


def by_policy(chosen: dict[str, Any]) -> float:
    """An adapter takes about ten times the rate of all weights."""
    return 1e-4 if chosen.get("policy") == "full" else 1e-3


class VoteSettings(ServiceSettings):
    """How pairs are asked."""

    seed: int = Field(default=0, ge=0)
    """The seed of every random choice."""
    patience: float = Field(default=300, ge=0)
    """Seconds to wait for a service that does not answer, is busy or restarts, before giving up with exit code 3."""
    votes_by: Literal["auto", "exact", "samples"] = "auto"
    """How pairs are asked: by the model's exact probabilities, which takes one that answers without thinking, or by
    sampled votes. auto: exact where the model can."""
    votes: int = Field(default=32, ge=1, le=128)
    """K of the offline stage: sampled votes a pair at most, half of them in each order (the paper: 32). Of an odd K one
    more is asked in one order, drawn anew for each pair."""
    permute: CliImplicitFlag[bool] = True
    """Ask about a pair in both orders alike. Without, an ablation: in one order alone, that of the images' digests,
    which leaves the model's preference for one position in the labels."""
    tie_margin: Share = 0.3
    """Exact votes: pairs whose two sides are less than this apart (0.3: 65 to 35 %) are ties, p* = 0.5, as counts of
    close pairs often are. With 0 (every pair has a winner) round 2 of the demo pulled apart what the model cannot
    tell apart, and lost a part of round 1's gain."""
    vote_error: Share = 0.06
    """Sampled votes on a pair end once their majority differs from that of all K with this probability at most;
    0 goes on while any vote could change it."""
    vote_temperature: float = Field(default=0.5, gt=0, le=2)
    """Temperature of sampled votes. 0.5 was chosen on the embedded model. Of a model that answers readably and without
    thinking the majority of infinitely many votes is the same at any temperature, and below 1 fewer votes show it; of
    one that thinks neither was measured."""

    @property
    def stopping_error(self) -> float | None:
        """With which probability of a change sampled votes may stop; None where all K are wanted."""
        return self.vote_error

    @model_validator(mode="after")
    def _asks_one_order_no_more_than_the_service_answers(self) -> VoteSettings:
        if self.votes > _MOST_IN_ONE_ORDER and not self.permute:
            raise ValueError(f"without permutation a pair may be asked {_MOST_IN_ONE_ORDER} times at most")
        return self


class EvolveSettings(VoteSettings):
    """Runs evolution rounds: pool, pairs, votes, GRPO, gate, promotion, report. A killed run resumes."""

    pool: Path
    """The unlabelled images: a folder, a quoted pattern ('photos/**/*.jpg'), a list (.txt: one path a line), Parquet
    files (.parquet) or WebDataset shards ('shards-{000..127}.tar'). Millions are read as a stream."""
    run: Path
    """The run's folder: labels, metrics, checkpoints, reports. Give the same folder to resume."""
    rounds: Count = 2
    """Rounds; each starts from the version that the one before promoted."""
    images: Count | None = None
    """Originals that each round draws from the pool, anew. Default: one for every four places in its groups (the
    paper: 10,000 for 20,000 pairs), or one for as many as it has variants; all if the pool has fewer."""
    pool_column: str | None = None
    """Column of the Parquet files with the images' bytes or paths. Default: the first that looks like one."""

    pixels: Count = 1_048_576
    """Originals with more pixels are scaled down to this many when they are drawn, before they are distorted; or to the
    service's own max_pixels, beyond which the model sees nothing, if that is set and smaller."""
    variants: int = Field(default=10, ge=0, le=35)
    """Distorted variants made of each image (the paper: 10)."""
    groups: Count = 100
    """Groups of images compared with each other; each is one training step an epoch."""
    group_size: int = Field(default=12, ge=2, le=64)
    """Images a group, all paired: 12 give 66 pairs. They are each other's partners in a step."""
    held_back_groups: int = Field(default=4, ge=1)
    """Groups voted on but not trained on, for the gate."""
    pairs: Literal["random", "informative"] = "random"
    """How groups are drawn: at random, as the paper does, or of images that the model scores alike now. At equal votes
    random ones told more of the embedded model (README)."""
    same_reference_share: Share = 0.5
    """From round 2 on: share of groups that compare the distortions of one original; none without variants."""

    labels: Literal["hard", "soft"] = "hard"
    """What training makes of a pair's votes: its majority, as the paper does, or, an ablation, their share. For that
    all K sampled votes are cast, and --tie-margin is the gate's alone."""
    reward: Literal["fidelity", "regression"] = "fidelity"
    """What a sampled score is rewarded for: ordering images as the votes do, or, an ablation of the paper's, nearness
    to the mean of the image's own scores, sampled before the training. That one asks for no votes but the gate's."""
    samples: int = Field(default=16, ge=2, le=64)
    """K of the online stage: scores sampled for each image of a step (the paper: 32)."""
    epochs: Count = 1
    """How often each group is trained on."""
    policy: Literal["lora", "full"] = "lora"
    """What is trained: `lora` an adapter, whose answers the serving engine samples beside its users'; `full` all
    weights, as the paper does, sampled by an engine of their own (`evoquality serve --role rollout`)."""
    learning_rate: float = Field(default_factory=by_policy, gt=0)
    """Of AdamW, falling linearly to zero. Unset: 1e-3 with policy lora, 1e-4 with full (the paper, 7B: 3e-7)."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL penalty to the model the round started from (the paper: 0.05)."""
    gamma: float = Field(default=0.01, ge=0)
    """Added to the variance in the Thurstone probability."""
    normalise: CliImplicitFlag[bool] = True
    """Divide advantages by their group's standard deviation, as the paper does."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Trust region: the probability ratio may fall to 1 - this."""
    clip_high: float = Field(default=0.28, gt=0)
    """Trust region: the probability ratio may rise to 1 + this."""
    truncation: float = Field(default=2.0, ge=1)
    """Largest weight of a token by its probability ratio (truncated importance sampling)."""
    overlap: CliImplicitFlag[bool] = True
    """Sample the next step's scores while this one updates, from the policy one step behind. Without: strictly
    on-policy, and slower."""
    images_per_pass: Count = 16
    """Images of a step in one forward and backward pass; fewer need less memory and change nothing else."""
    rank: int = Field(default=32, ge=1, le=64)
    """Policy lora: rank of the adapter."""
    rollout_operator: str | None = None
    """Policy full: address of the rollout engine's operators' routes; of several, separated by commas."""
    handover: Path | None = None
    """Policy full: folder in which it is handed weights, its own `--handover`; the run's last ones stay there. Default:
    handover in the store."""
    train_vision: CliImplicitFlag[bool] = False
    """Policy full: train the vision tower too. A high learning rate destroys it before the scores improve."""
    reference_device: str | None = None
    """Policy full, one process: where the frozen model of the KL penalty computes, for example cpu. Default: device."""
    checkpoint_every: Count = 10
    """Steps between the checkpoints a killed run resumes from."""
    device: str = "cpu"
    """Where the torch policy computes, for example cuda:1; under torchrun cuda, each process on its own."""
    threads: Count | None = None
    """Threads of the torch policy on CPU; unset: half the cores that the process may use, the others are the service's;
    torchrun's processes share them. Too many threads wait for each other longer than they work."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the passes through the policy: bfloat16 on a GPU. What is trained stays float32."""
    gradient_checkpointing: CliImplicitFlag[bool] = False
    """Compute activations again for the backward pass: less memory, more time, the same gradients."""

    dry_run: CliImplicitFlag[bool] = False
    """Only tell what the run would take: images, votes, rollouts, steps, and, measured on a few groups against the
    running service, hours and disk. Nothing is kept."""
    price: Path | None = None
    """With --dry-run: also write what it tells to this JSON file."""

    tensorboard: CliImplicitFlag[bool] = True
    """Write TensorBoard's event files; look at them with `tensorboard --logdir <run>/tensorboard`."""
    mlflow: str | None = None
    """Tracking URI of an MLflow to follow the run too: a run a round, in the experiment `evoquality`."""

    gate_unreadable: Share = 0.05
    """Gate: how much larger than before the share of unreadable scores may be. The demo's healthy rounds go from 2 to
    4 % before to at most 5.4 % after; drawing other images alone moves it by 1 %."""
    gate_agreement_loss: Share = 0.03
    """Gate: how much less often than before the scores' order may agree with the votes on held-back pairs. A healthy
    round that has nothing more to learn ends within 1 or 2 % of where it began; a random order agrees with half."""
    gate_spread: Share = 0.25
    """Gate: smallest spread of the scores, as a share of the spread before."""
    gate_largest_spread: float = Field(default=1.7, ge=0)
    """Gate: largest spread of the scores: 1.15 is that of scores evenly from 1 to 5, and 2, the most there is, of
    nothing but ones and fives. The demo's healthy rounds end at 1.1 to 1.4. A larger spread before may stay."""
    gate_drift: float = Field(default=1.0, ge=0)
    """Gate: how far the mean score may move, on the scale of 1 to 5. In the demo's healthy rounds: 0.5 at most."""
    gate_position_bias: Share = 0.1
    """Gate: how much more than before the image shown first may be preferred, as a share of the votes. In the demo's
    healthy rounds it shrinks."""
    probe: Path | None = None
    """Gate: a labelled set, as `evaluate --benchmarks` takes them. Nothing is trained on it."""
    gate_probe_loss: Share = 0.02
    """Gate: how much lower than before the SRCC on the probe may be."""
    regression_drift: float = Field(default=0.25, ge=0)
    """After promotion: how far the held-back images' scores may be from the gate's in the mean, beside the gate's own
    limits, or the version before is promoted again."""

    collapse_window: Count = 5
    """Collapse watch: steps that the limits below are compared with the mean of."""
    collapse_entropy: float = Field(default=0.02, ge=0)
    """Collapse watch: smallest entropy of the answers, in nats a token. The demo's healthy rounds: 0.3 at least."""
    collapse_spread: float = Field(default=0.01, ge=0)
    """Collapse watch: smallest spread of a step's mean scores. The demo's healthy rounds: 0.5 at least."""
    collapse_constant: Share = 0.9
    """Collapse watch: largest share of images whose answers are all equal."""
    collapse_unreadable: Share = 0.5
    """Collapse watch: largest share of unreadable answers. The demo's healthy rounds: 9 % at most."""
    collapse_kl: float = Field(default=3, ge=0)
    """Collapse watch: largest KL divergence from the model the round started from, in nats a token. The demo's healthy
    rounds reach 1.2."""

    @property
    def stopping_error(self) -> float | None:
        """None for soft labels: the share of votes that stopped early is more extreme than that of all."""
        return None if self.labels == "soft" else self.vote_error

    @property
    def places(self) -> int:
        """Places for images in all groups of a round."""
        return (self.groups + self.held_back_groups) * self.group_size

    @property
    def originals(self) -> int:
        """How many originals a round draws, if the pool has as many."""
        return self.images or math.ceil(self.places / min(_PLACES_AN_ORIGINAL, 1 + self.variants))

    @property
    def handover_folder(self) -> Path:
        """Where weights are handed over."""
        return self.handover or self.store / "handover"

    @model_validator(mode="after")
    def _has_an_engine_to_overwrite(self) -> EvolveSettings:
        if self.policy == "full" and self.rollout_operator is None:
            raise ValueError(
                "policy full needs an engine whose weights it may overwrite: start one on the same store with "
                "`evoquality serve --role rollout` and name its operators' address with --rollout-operator"
            )
        return self

    @model_validator(mode="after")
    def _pool_exists(self) -> EvolveSettings:
        if not any(path.exists() for path in paths(self.pool)):
            raise ValueError(
                f"the pool {self.pool} is not a folder, nor a list, Parquet file or shard, nor a pattern that matches "
                "one; name what holds your images"
            )
        return self


def listed(given: object) -> object:
    """Reads names that are separated by commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


Benchmarks = Annotated[list[Path], Field(min_length=1), NoDecode, BeforeValidator(listed)]


class EvaluateSettings(ServiceSettings):
    """What to evaluate, on what, and how."""

    benchmarks: Benchmarks
    """Labelled sets: a benchmark's folder as it is distributed (KonIQ-10k, SPAQ, KADID-10k, PIPAL, LIVE-C, AGIQA-3K,
    TID2013, CSIQ), a label file in it (DeQA-Score's JSON, pyiqa's CSV), a folder with labels.csv (columns image,mos)
    and images/, or a folder of such folders. Several: separated by commas, or the flag again."""
    split: Split = "auto"
    """Which part of the sets. auto: the official test part where there is one, else all of the set."""
    models: Annotated[list[str], Field(min_length=1), NoDecode, BeforeValidator(listed)] = ["serving"]
    """What to evaluate. `serving`: what the running service serves now. Served by a service started for the while: a
    version of --store (v2ef5d96829e7), a checkpoint's folder, a name on the model hub (Qwen/Qwen2.5-VL-7B-Instruct;
    @revision may follow). The first is the baseline that the others are tested against. Several: separated by commas,
    or the flag again."""
    service: str = "http://127.0.0.1:8000"
    """Address of the running service's public routes."""
    key: str | None = None
    """Key of the public routes, where they ask for one."""
    profile: ProfileName = "plain"
    """How checkpoints answer: `plain` a number, `evoquality` thinks and boxes it, `visualquality-r1` thinks and tags
    it. One that answers in another way than the rest is named with its own: evoquality:owner/name."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] | None = None
    """Arithmetic of the services that are started; unset: their own default."""
    serve_flags: str = ""
    """Further flags of `evoquality serve` for them, in quotes: --serve-flags "--max-model-len 4096"."""
    mode: Mode = "auto"
    """How an image's score is asked for: `expected`, the mean of the model's own distribution of scores, or `sampled`,
    the mean of drawn answers. auto: expected of a model that answers without thinking, else sampled."""
    samples: int = Field(default=16, ge=1, le=64)
    """Sampled mode: answers drawn an image."""
    seed: int = Field(default=0, ge=0)
    """Of the answers drawn in sampled mode, of the bootstrap, and of splits where there are no official ones."""
    out: Path = Path("evaluation")
    """Folder of the results. Predictions are kept in it: started again, only what is missing is asked for, and with
    everything there the metrics are computed again without any model."""
    record: CliImplicitFlag[bool] = False
    """Also have the running service show the metrics beside those models that are versions in its list; takes the
    operators' key (--operator, --store)."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence of the bootstrap intervals; a test is significant below 1 - level."""
    resamples: Count = 1000
    """Resamples of the bootstrap: of the intervals, and of the tests against the baseline, which take more where there
    are so many tests that no corrected p could be significant."""

    @property
    def protocol(self) -> Protocol:
        """How images are asked about."""
        return Protocol(self.mode, self.samples, self.seed)


class AuditSettings(VoteSettings):
    """Which votes to audit."""

    benchmarks: Benchmarks
    """Labelled sets: benchmarks' folders as they are distributed, label files in them, or a folder of such folders.
    Several: separated by commas, or the flag again."""
    split: Split = "auto"
    """Which part of the sets. auto: the official test part where there is one, else all of the set."""
    out: Path = Path("audit")
    """Folder of the votes and results. Votes are kept in it: started again, only what is missing is asked for, and
    another version's votes on the same pairs are shown beside those that are there."""
    groups: Count = 20
    """Groups of each benchmark's images that are compared with each other."""
    group_size: int = Field(default=12, ge=2, le=64)
    """Images a group, all paired: 12 give 66 pairs and 220 triples."""


class ReportSettings(BaseSettings):
    """Which run to report."""

    model_config = SettingsConfigDict(extra="forbid", use_attribute_docstrings=True, cli_kebab_case=True)

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
