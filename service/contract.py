"""Every request and response of the service, public and internal.

This module is the contract between `service/` and whoever calls it, `trainer/` included.
It imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Side = Literal["first", "second"]
Task = Literal["score", "compare"]

Base64Image = Annotated[str, Field(min_length=1, description="An image file, base64-encoded.")]
Samples = Annotated[int, Field(ge=1, le=64, description="K: how many answers are sampled.")]
Temperature = Annotated[float, Field(ge=0.0, le=2.0, description="0 is greedy decoding.")]
Seed = Annotated[int, Field(ge=0, lt=2**31, description="Makes the sampled answers repeatable.")]


class Message(BaseModel):
    """Base of all messages: unknown fields are an error, not silently dropped."""

    model_config = ConfigDict(extra="forbid")


class ScoreOptions(Message):
    """How an image is scored."""

    samples: Samples = 8
    temperature: Temperature = 1.0
    seed: Seed | None = None


class ScoreRequest(ScoreOptions):
    """`POST /v1/score` as JSON. The multipart form has the same fields, `image` being the file."""

    image: Base64Image


class ScoreResponse(Message):
    """The quality of one image, on the 1 (very poor) to 5 (excellent) scale of `c_score`."""

    score: float | None = Field(description="Mean of the readable answers; null if none was readable.")
    std: float | None = Field(description="Standard deviation (n-1) of the readable answers.")
    samples: int = Field(description="Answers asked for.")
    unreadable: int = Field(description="Answers that held no score between 1 and 5.")
    model: str
    version: str


class CompareOptions(Message):
    """How two images are compared."""

    samples: Annotated[
        int, Field(ge=2, le=64, multiple_of=2, description="Votes in all, half of them in each order.")
    ] = 8
    temperature: Temperature = 1.0
    seed: Seed | None = None


class CompareRequest(CompareOptions):
    """`POST /v1/compare` as JSON. The multipart form has the same fields, the images being files."""

    first: Base64Image
    second: Base64Image


class Votes(Message):
    """Votes for each of the caller's two images."""

    first: int
    second: int


class OrderVotes(Message):
    """The votes of one order of presentation."""

    shown_first: Side = Field(description="Which of the caller's images was shown first.")
    votes: Votes
    unreadable: int


class CompareResponse(Message):
    """Which of two images looks better: the majority over both orders of presentation."""

    preferred: Literal["first", "second", "tie"] | None = Field(description="null if no answer was readable.")
    votes: Votes
    unreadable: int
    samples: int
    orders: list[OrderVotes]
    model: str
    version: str


class VersionInfo(Message):
    """A version of the weights, as its manifest tells it."""

    id: str
    parent: str | None
    created: datetime
    profile: str
    origin: str = Field(description="What made it, for example 'embedded' or 'evolve round 1'.")
    metrics: dict[str, float]


class VersionsResponse(Message):
    """`GET /v1/versions`."""

    active: str
    previous: str | None
    versions: list[VersionInfo]


class SwapResponse(Message):
    """What a promotion or rollback did to the traffic."""

    version: str
    previous: str | None
    blackout_ms: float = Field(description="How long the gate was closed to requests, drain included.")
    drain_ms: float = Field(description="Waiting for running requests to end on the old weights.")
    reload_ms: float = Field(description="Loading the weights and emptying the caches.")


class RolloutPrompt(Message):
    """One prompt of a batch: a task over images that the batch carries, asked `samples` times."""

    task: Task
    images: Annotated[list[str], Field(min_length=1, max_length=2, description="Keys into `images`.")]
    samples: Samples
    seed: Seed | None = None


class RolloutRequest(Message):
    """`POST /internal/rollouts`: many prompts, answered by one version (and one adapter) of the weights."""

    images: dict[str, Base64Image]
    prompts: Annotated[list[RolloutPrompt], Field(min_length=1, max_length=1024)]
    temperature: Temperature = 1.0
    adapter: str | None = Field(default=None, description="A loaded adapter; none means the active version.")
    version: str | None = Field(default=None, description="Refuse (409) unless this version is the active one.")
    priority: int = Field(default=10, ge=0, le=100, description="Higher waits longer; users have 0.")


class Completion(Message):
    """One sampled answer, with what GRPO needs to know about it."""

    text: str
    token_ids: list[int]
    logprobs: list[float] = Field(description="Natural log-probability of each sampled token.")
    finish_reason: str


class RolloutResult(Message):
    """The answers to one prompt."""

    prompt_token_ids: list[int] = Field(description="As the engine saw them, image placeholders expanded.")
    completions: list[Completion]


class RolloutResponse(Message):
    """Results in the order of the request's prompts."""

    results: list[RolloutResult]
    adapter: str | None
    version: str


class AdapterRequest(Message):
    """`POST /internal/adapters`: load `<store>/adapters/<name>` under a name never used before."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class AdapterResponse(Message):
    """A loaded adapter and the integer id the engine knows it by (from a persisted counter)."""

    name: str
    id: int


class HealthResponse(Message):
    """`GET /health/live` and `/health/ready`."""

    status: Literal["live", "ready"]
    version: str


class Problem(BaseModel):
    """The body of every error (RFC 9457), with a stable `code` and the request's id."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
