"""What is evaluated, and whose votes are audited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import CliImplicitFlag, NoDecode

from service.prompts import ProfileName
from trainer.evaluation.protocol import Mode, Protocol, Split
from trainer.settings.service import Count, ServiceSettings, VoteSettings


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
    models: Annotated[list[str], Field(min_length=1), NoDecode, BeforeValidator(listed)] = Field(["serving"])
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
