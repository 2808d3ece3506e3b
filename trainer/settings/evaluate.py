"""The settings of evaluations and of audits of votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import CliImplicitFlag, NoDecode

from service.prompts import ProfileName
from trainer.settings.protocol import THOUGHTS, Mode, Protocol, Split
from trainer.settings.service import Count, ServiceSettings, VoteSettings


def listed(given: object) -> object:
    """Splits names at commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


Benchmarks = Annotated[list[Path], Field(min_length=1), NoDecode, BeforeValidator(listed)]


class EvaluateSettings(ServiceSettings):
    """The models, benchmarks and protocol of an evaluation."""

    benchmarks: Benchmarks
    """Labelled sets: a benchmark's folder as it is distributed (KonIQ-10k, SPAQ, KADID-10k, PIPAL, LIVE-C, AGIQA-3K,
    TID2013, CSIQ), a label file in it (DeQA-Score's JSON, pyiqa's CSV), a folder with labels.csv (columns image,mos)
    and images/, or a folder of such folders. Several: separated by commas, or the flag again."""
    split: Split = "auto"
    """Part of the sets. auto: the official test part if there is one, else the whole set."""
    models: Annotated[list[str], Field(min_length=1), NoDecode, BeforeValidator(listed)] = Field(["serving"])
    """Models to evaluate. `serving`: the running service's active version. A temporary service is started for a version
    of --store (v9df0ac5853e5), a checkpoint's folder, or a name on the model hub (Qwen/Qwen2.5-VL-7B-Instruct;
    @revision may follow). The first is the baseline that the others are tested against. Several: separated by commas,
    or the flag again."""
    service: str = "http://127.0.0.1:8000"
    """Address of the running service's public routes."""
    key: str | None = None
    """Key of the public routes, if they require one."""
    patience: float = Field(default=600, ge=0)
    """Seconds to wait for a service that has answered and then goes away or is busy, before the trainer exits with 3.
    The answers so far are kept."""
    profile: ProfileName = "plain"
    """Format of the checkpoints' answers: `plain` a number, `evoquality` thinks and boxes it, `visualquality-r1` thinks
    and tags it. A model with another format than the rest is named with its own: evoquality:owner/name."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] | None = None
    """Arithmetic of the temporary services; unset: their own default."""
    serve_flags: str = ""
    """Further flags of `evoquality serve` for the temporary services, in quotes: --serve-flags "--max-model-len
    4096"."""
    mode: Mode = "auto"
    """An image's score: `expected`, the mean of the model's own distribution of scores, or `sampled`, the mean of
    sampled answers. auto: expected."""
    samples: int = Field(default=16, ge=1, le=64)
    """Sampled mode: answers an image."""
    thoughts: int = Field(default=THOUGHTS, ge=1, le=64)
    """Expected mode of a model that thinks: thoughts an image."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampled answers and thoughts, of the bootstrap, and of splits without an official part."""
    out: Path = Path("evaluation")
    """Folder of the results. It keeps the predictions: a second start asks only for missing ones, and if none is
    missing computes the metrics again without any model."""
    record: CliImplicitFlag[bool] = False
    """Also record the metrics of models that are versions of the running service, which shows them in its list; needs
    the operators' key (--operator, --store)."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence of the bootstrap intervals; a test is significant below 1 - level."""
    resamples: Count = 1000
    """Resamples of the bootstrap, for the intervals and the tests against the baseline. The tests take more if
    otherwise no corrected p could be significant."""

    @property
    def protocol(self) -> Protocol:
        """The protocol of asking about images."""
        return Protocol(self.mode, self.samples, self.seed, self.thoughts)


class AuditSettings(VoteSettings):
    """The votes to audit."""

    benchmarks: Benchmarks
    """Labelled sets: benchmarks' folders as they are distributed, label files in them, or a folder of such folders.
    Several: separated by commas, or the flag again."""
    split: Split = "auto"
    """Part of the sets. auto: the official test part if there is one, else the whole set."""
    out: Path = Path("audit")
    """Folder of the results. It keeps the votes: a second start asks only for missing ones, and shows another version's
    votes on the same pairs beside earlier ones."""
    groups: Count = 20
    """Groups of images of each benchmark that are compared with each other."""
    group_size: int = Field(default=12, ge=2, le=64)
    """Images a group, all paired: 12 give 66 pairs and 220 triples."""
