"""Every request and response of the service, public and internal: the contract with its callers, `trainer/` included.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from evoquality.options import AnswerTokens, Priority, Samples, Seed, Temperature
from evoquality.options import CompareOptions as CompareOptions
from evoquality.options import Mode as Mode
from evoquality.options import Options as Options
from evoquality.options import RankOptions as RankOptions
from evoquality.options import Request as Request
from evoquality.options import ScoreOptions as ScoreOptions

Side = Literal["first", "second"]
Task = Literal["score", "compare"]
Role = Literal["serve", "rollout"]

MAX_BATCH, MAX_RANKED = 64, 64

EncodedImage = Annotated[
    str, Field(min_length=1, description="Base64, a data: URL, or an https: URL where the service allows its host.")
]
KeptImage = Annotated[
    str, Field(min_length=1, description="An image file in base64, or `sha256:` and the digest of one sent before.")
]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

_THOUGHTS = "Thoughts sampled, behind each of which the probabilities were read; null otherwise."
_SEED = "Asked with this seed, the answer is the same; null if nothing was drawn at random."
_CUT_OFF = "Share of the answers of a model that thinks that the limit of tokens ended too early; not in `unreadable`."
_TEXTS = "The sampled answers, or the thoughts to where the answer begins, if `reasoning` was asked for."


class Message(BaseModel):
    """Base of answers, and of what is kept in files. Fields that a newer version added are ignored."""


class Problem(BaseModel):
    """The body of every error (RFC 9457), with a stable `code` and the request's id."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    images: list[str] | None = Field(
        default=None, exclude_if=lambda images: images is None, description="`unknown_images`: the digests to send."
    )


class ScoreRequest(ScoreOptions):
    """`POST /v1/score` as JSON. The multipart form has the same fields, `image` being the file."""

    image: EncodedImage


class ImageSize(Message):
    """Size in pixels of an upright picture, and of the picture as the model saw it (null if unknown)."""

    width: int
    height: int
    seen_width: int | None
    seen_height: int | None


class ScoreProbability(Message):
    """One bar of a distribution of scores."""

    score: float
    probability: Probability


class ScoreResponse(Message):
    """The quality of one image, on the 1 (very poor) to 5 (excellent) scale of `c_score`."""

    score: float | None = Field(description="Mean of the readable answers; null if none was readable.")
    std: float | None = Field(
        description="Standard deviation of the model's answers: of its own distribution (expected), of the readable "
        "samples with n-1 (sampled)."
    )
    entropy: float | None = Field(description="Of the distribution over tenths, in nats; expected mode only.")
    mode: Mode
    samples: int | None = Field(description="Answers drawn; null in expected mode.")
    thoughts: int | None = Field(default=None, description=_THOUGHTS)
    seed: int | None = Field(default=None, description=_SEED)
    unreadable: Probability = Field(description="Share of the samples, or probability, of answers without a score.")
    cut_off: Probability = Field(default=0.0, description=_CUT_OFF)
    distribution: list[ScoreProbability] | None = Field(description="Over tenths of a score, if asked for.")
    answers: list[str] | None = Field(description=_TEXTS)
    image: ImageSize
    model: str
    version: str


class ScoreBatchRequest(ScoreOptions):
    """`POST /v1/score/batch` as JSON. The multipart form has the same fields, `images` being the files."""

    images: Annotated[list[EncodedImage], Field(min_length=1, max_length=MAX_BATCH)]


class ScoreBatchItem(Message):
    """The answer to one image of a batch: a result, or the problem that kept it from having one."""

    index: int = Field(description="Position of the image in the request, from 0.")
    result: ScoreResponse | None
    problem: Problem | None


class ScoreBatchResponse(Message):
    """The answers in the order of the images. With `Accept: application/x-ndjson`: one item a line, as they come."""

    results: list[ScoreBatchItem]
    model: str
    version: str


class CompareRequest(CompareOptions):
    """`POST /v1/compare` as JSON. The multipart form has the same fields, the images being files."""

    first: EncodedImage
    second: EncodedImage


class Votes(Message):
    """Votes for each of the caller's two images."""

    first: int
    second: int


class OrderPreference(Message):
    """The answers in one order of presentation."""

    shown_first: Side = Field(description="Which of the caller's images was shown first.")
    probability_first: float | None = Field(description="Share of the readable answers that prefer `first`.")
    votes: Votes | None = Field(description="Sampled mode only.")
    unreadable: Probability
    cut_off: Probability = Field(default=0.0, description=_CUT_OFF)
    answers: list[str] | None = Field(description=_TEXTS)


class CompareResponse(Message):
    """The better looking of two images, over both orders of presentation."""

    preferred: Literal["first", "second", "tie"] | None = Field(description="null if no answer was readable.")
    probability_first: float | None = Field(description="Mean of both orders (expected), share of the votes (sampled).")
    position_bias: float | None = Field(
        description="How much more likely than one half the picture shown first is preferred; 0 is unbiased."
    )
    mode: Mode
    samples: int | None = Field(description="Votes drawn; null in expected mode.")
    thoughts: int | None = Field(default=None, description=_THOUGHTS)
    seed: int | None = Field(default=None, description=_SEED)
    votes: Votes | None = Field(description="Sampled mode only.")
    unreadable: Probability = Field(description="Share of the samples, or probability of an answer, without a vote.")
    cut_off: Probability = Field(default=0.0, description=_CUT_OFF)
    orders: list[OrderPreference]
    images: list[ImageSize] = Field(description="Of `first` and `second`.")
    model: str
    version: str


class RankRequest(RankOptions):
    """`POST /v1/rank` as JSON. The multipart form has the same fields, `images` being the files."""

    images: Annotated[list[EncodedImage], Field(min_length=2, max_length=MAX_RANKED)]


class RankedImage(Message):
    """One image's place."""

    index: int = Field(description="Position of the image in the request, from 0.")
    rank: int | None = Field(description="1 is the best; images of equal strength share a rank.")
    strength: float | None = Field(
        description="Bradley-Terry strength in logits, with mean 0 over the images. Strength and rank are null if no "
        "comparison of this image was readable."
    )
    standard_error: float | None = Field(description="Of the strength; null with too few comparisons.")
    image: ImageSize


class RankResponse(Message):
    """Images from the best to the worst, by Bradley-Terry strengths of pairwise preferences; unranked ones last."""

    ranking: list[RankedImage]
    comparisons: int = Field(description="Comparisons made, each in both orders of presentation.")
    pairs: int = Field(description="All pairs there are: n (n - 1) / 2.")
    position_bias: float | None = Field(description="As in a comparison; mean over all of them.")
    mode: Mode
    seed: int | None = Field(default=None, description=_SEED)
    unreadable: Probability = Field(description="As in a comparison; mean over all of them.")
    cut_off: Probability = Field(default=0.0, description="As in a comparison; mean over all of them.")
    model: str
    version: str


class InfoResponse(Message):
    """`GET /v1/info`: the serving version, and the limits of a request."""

    model: str
    version: str
    role: Role = Field(description="`serve` answers users; `rollout` answers the trainer only.")
    follows: bool = Field(description="True for a follower, whose version is the one that the store's pointer names.")
    profile: str
    thinks: bool
    max_answer_tokens: int | None = Field(
        default=None, description="Longest answer of a model that thinks, thought included; null for other models."
    )
    modes: list[Mode] = Field(description="The default first.")
    dtype: str
    parameters: int = Field(default=0, description="Of the model, in all; 0: unknown.")
    max_num_seqs: int = Field(default=64, description="Answers that the engine samples at the same time.")
    formats: list[str]
    max_upload_bytes: int
    max_image_pixels: int
    max_image_side: int
    min_image_side: int
    min_pixels: int | None = Field(description="Smaller pictures are scaled up to this; null: unknown.")
    max_pixels: int | None = Field(
        description="Larger pictures are scaled down to this, so that two of them, the question and the longest answer "
        "fit into the model's context; null: unknown."
    )
    max_batch: int
    max_ranked: int
    url_hosts: list[str] = Field(description="Hosts that images may be fetched from.")


class VersionInfo(Message):
    """A version of the weights, from its manifest."""

    id: str
    parent: str | None
    created: datetime
    profile: str
    origin: str = Field(description="Where it comes from, for example 'embedded' or 'evolve round 1'.")
    metrics: dict[str, float]


class Benchmark(Message):
    """Agreement of a version's scores with people's scores on one labelled set."""

    n: Annotated[int, Field(ge=1)]
    plcc: Annotated[float, Field(ge=-1, le=1)]
    srcc: Annotated[float, Field(ge=-1, le=1)]


class BenchmarksRequest(Request):
    """`PUT /internal/versions/{id}/benchmarks`: results by the name of the set; replaces earlier ones."""

    benchmarks: dict[Annotated[str, Field(min_length=1, max_length=64)], Benchmark]


class ListedVersion(VersionInfo):
    """A version, and what was measured of it since."""

    benchmarks: dict[str, Benchmark]
    refused: str | None = Field(default=None, description="The reason why it must not serve; null if it may.")


class VersionsResponse(Message):
    """`GET /v1/versions`."""

    active: str
    previous: str | None
    versions: list[ListedVersion]


class SwapResponse(Message):
    """The result of a swap, and its cost to the traffic."""

    version: str
    previous: str | None
    blackout_ms: float = Field(description="How long new requests waited, drain included.")
    drain_ms: float = Field(description="Waiting for running requests to end on the old weights.")
    reload_ms: float = Field(description="Loading the weights and emptying the caches.")


class RolloutPrompt(Request):
    """One prompt of a batch: a task over images that the batch carries, asked `samples` times."""

    task: Task
    images: Annotated[list[str], Field(min_length=1, max_length=2, description="Keys into `images`.")]
    samples: Samples
    seed: Seed | None = None
    profile: str | None = Field(default=None, description="Ask in this format of answers; none means the version's.")


class RolloutRequest(Request):
    """`POST /internal/rollouts`: many prompts, answered by one version (and one adapter) of the weights."""

    images: dict[str, KeptImage]
    prompts: Annotated[list[RolloutPrompt], Field(min_length=1, max_length=1024)]
    temperature: Temperature = 1.0
    max_answer_tokens: AnswerTokens | None = None
    adapter: str | None = Field(default=None, description="A loaded adapter; none means the active version.")
    version: str | None = Field(default=None, description="Refuse (409) unless this version is the active one.")
    priority: Priority = 10
    logprobs: bool = Field(default=True, description="False: texts and their tokens are enough, as for votes.")


class Completion(Message):
    """One sampled answer, with its token ids and log-probabilities for GRPO."""

    text: str
    token_ids: list[int]
    logprobs: list[float] = Field(description="Natural log-probability of each sampled token, if asked for.")
    finish_reason: str = Field(description="`stop`, or `length` if the limit of tokens cut the answer off.")


class RolloutResult(Message):
    """The answers to one prompt."""

    prompt_token_ids: list[int] = Field(
        description="As the engine saw them, image placeholders expanded; empty without log-probabilities."
    )
    completions: list[Completion]


class RolloutResponse(Message):
    """Results in the order of the request's prompts."""

    results: list[RolloutResult]
    adapter: str | None
    version: str


class WeightsRequest(Request):
    """`PUT /internal/weights`: the safetensors in `<handover>/<name>`; rollouts then give `name` as their version."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class ExactVotesRequest(Request):
    """`POST /internal/exact-votes`: pairs of images that the batch carries, answered by one version of the weights.

    Of a model that thinks, the votes are means over `thoughts` in each order. Thought number i of an order of two
    images is the same in every request with the same seed, so a later one may go on with `first_thought`.
    """

    images: dict[str, KeptImage]
    pairs: Annotated[list[tuple[str, str]], Field(min_length=1, max_length=1024, description="Keys into `images`.")]
    thoughts: Samples = Field(default=1, description="In each order; only of a model that thinks.")
    first_thought: Annotated[int, Field(ge=0)] = 0
    temperature: Temperature = Field(default=1.0, description="Of the thoughts.")
    seed: Seed = Field(default=0, description="Of the thoughts.")
    max_answer_tokens: AnswerTokens | None = None
    version: str | None = Field(default=None, description="Refuse (409) unless this version is the active one.")
    priority: Priority = 10


class VoteProbabilities(Message):
    """Probabilities of a vote for each image of the pair, in one order. The rest up to 1 is unreadable."""

    first: Probability
    second: Probability
    cut_off: Probability = Field(default=0.0, description=_CUT_OFF)


class ExactVotes(Message):
    """The limit of infinitely many votes at temperature 1 on one pair, in both orders of presentation, or, of a model
    that thinks, an estimate of it."""

    forward: VoteProbabilities = Field(description="The pair's first was shown first.")
    backward: VoteProbabilities = Field(description="The pair's second was shown first.")


class ExactVotesResponse(Message):
    """Results in the order of the request's pairs."""

    results: list[ExactVotes]
    version: str


class AdapterRequest(Request):
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
