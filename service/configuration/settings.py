"""The service's settings: flags of `evoquality serve`, environment variables `EVOQUALITY_*`, or a TOML file."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from evoquality.contract import Role
from service.configuration.sources import PREFIX, Environment, File
from service.errors import UserError
from service.extras import has_gpu_engine
from service.files import read_key
from service.prompts import MAX_ANSWER_TOKENS, ProfileName

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+$")]
AnyOrigin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\[\]:-]+)$")]
Address = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?$")]
RootPath = Annotated[
    str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$"), BeforeValidator(lambda given: str(given).rstrip("/"))
]
Rank = Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(lambda given: int(given))]
Host = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z][a-z0-9-]*$")]


def _by_engine(cpu: Any, gpu: Any) -> Any:
    """A default that depends on the engine that is installed."""
    return Field(default_factory=lambda: gpu if has_gpu_engine() else cpu)


SECTIONS = {
    "config": "What is served",
    "host": "Addresses and keys",
    "dtype": "Engine",
    "max_upload_bytes": "Requests",
    "drain_seconds": "Operation",
}
"""The title of each section, by its first setting."""


def _split(hosts: object) -> object:
    return [host.strip() for host in hosts.split(",") if host.strip()] if isinstance(hosts, str) else hosts


class Settings(BaseSettings):
    """Every setting of the service. A wrong one stops the start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", env_ignore_empty=True, use_attribute_docstrings=True
    )

    config: Path | None = None
    """TOML file with settings by their names; flags and environment variables override it."""
    store: Path = Path("store")
    """The version store: a directory, on a shared volume when the trainer runs elsewhere."""
    state: Path | None = None
    """Folder that only this replica writes to: a generated operators' key, the ids of adapters. Needed if the store is
    read-only. Default: the store."""
    checkpoint: str | None = None
    """Starts a new store: a checkpoint directory, or a hub name like `Qwen/Qwen2.5-VL-7B-Instruct` (`@revision` may
    follow). Ignored if the store has an active version, and by followers."""
    profile: ProfileName = "plain"
    """Answer format of that checkpoint: `plain` a number (Qwen2.5-VL as released), `evoquality` thinks and boxes it
    (EvoQuality's release), `visualquality-r1` thinks and tags it."""
    role: Role = "serve"
    """`serve` answers users; its weights change by promotion only. `rollout` answers the trainer only, which may
    overwrite its weights at every step (`PUT /internal/weights`), load adapters and promote versions; it starts with
    the store's active version and never moves the pointer."""
    handover: Path | None = None
    """Role rollout: the folder in which the trainer hands weights over, for example `/dev/shm/evoquality` on the same
    machine. Default: `handover` in the store."""
    follow: bool = False
    """Makes this replica a follower: others move the store's pointer ACTIVE (the trainer, `evoquality versions promote
    --store`), and it swaps to the version that ACTIVE names. It writes nothing to the store, which may be mounted
    read-only, and waits for the first version of an empty store."""
    follow_seconds: Seconds = 2.0
    """Seconds between two looks of a follower at the pointer."""
    follow_spread_seconds: Annotated[float, Field(ge=0)] = 30.0
    """A follower waits a random part of this time before it swaps, in seconds, so that replicas take turns. It is up to
    date within `follow_seconds`, this, `drain_seconds` and the time to check and load the files."""
    model_name: str = "evoquality"
    """The name that answers give as `model`."""

    host: str = "127.0.0.1"
    """Address of the public routes."""
    port: Port = 8000
    """Port of the public routes; 0 takes any free one."""
    root_path: RootPath = ""
    """Path under which a proxy shows the public routes, for example `/iqa`, whether the proxy passes it on or not."""
    origins: Annotated[tuple[AnyOrigin, ...], NoDecode, BeforeValidator(_split)] = ()
    """Origins whose pages may call the public routes from a browser, separated by commas, `*` for all; empty: none. The
    service's own page needs none."""
    operator_host: str = "127.0.0.1"
    """Address of the operators' and internal routes."""
    operator_port: Port = 8001
    """Port of the operators' and internal routes."""
    operator_key_file: Path | None = None
    """File with the operators' key. Default: `operator.key` in `state`, created at the first start."""
    keys_file: Path | None = None
    """TOML or JSON file with the public routes' keys (see `evoquality keys add`); unset: no key is needed."""
    page_operator_url: Address | None = None
    """URL of the operators' port for browsers that show the page; unset: the page's own host, `operator_port`."""
    operator_origins: Annotated[tuple[Origin, ...] | None, NoDecode, BeforeValidator(_split)] = None
    """Origins whose pages may promote and roll back, separated by commas; unset: those of this machine (loopback)."""

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = _by_engine(cpu="float32", gpu="bfloat16")
    """The engine's arithmetic. Unset: float32 on a CPU, bfloat16 on a GPU, where answers vary a little with the
    batch."""
    max_model_len: Count = _by_engine(cpu=512, gpu=4096)
    """Tokens of a prompt and its answer, visual tokens included. Unset: 512 on a CPU, 4096 on a GPU, or as many as the
    checkpoint has positions."""
    max_answer_tokens: Annotated[int, Field(ge=8)] = MAX_ANSWER_TOKENS
    """Longest answer in tokens, thought included, of models that think. A longer one is cut off, which answers tell as
    `cut_off`. It must fit into `max_model_len` beside the question and its pictures."""
    max_num_seqs: Count = _by_engine(cpu=64, gpu=256)
    """Answers that the engine samples at the same time. Unset: 64 on a CPU, 256 on a GPU."""
    sequences_beside_users: Count | None = None
    """Answers that the engine samples for the trainer at the same time while users are being answered; no limit
    otherwise. Unset: half of `max_num_seqs`."""
    min_pixels: Count | None = None
    """Smaller pictures are scaled up to this many pixels; unset: the limit of the checkpoint's processor."""
    max_pixels: Count | None = None
    """Larger pictures are scaled down to this many pixels; unset: the limit of the checkpoint's processor, or what fits
    into `max_model_len`: two pictures, the question and the longest answer. Answers give the size that was seen. A
    setting that does not fit stops the start."""
    max_loras: Count = 2
    """Adapters that may answer in the same batch."""
    max_lora_rank: Rank = 64
    """Highest rank of an adapter."""
    kv_cache_gib: Count = 1
    """Memory for keys and values, in GiB; CPU engines only."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU's memory that the engine takes; GPU engines only."""
    tensor_parallel_size: Count = 1
    """GPUs that share one copy of the weights."""
    enforce_eager: bool = _by_engine(cpu=True, gpu=False)
    """False captures CUDA graphs: the start is slower, answers are faster; GPU engines only. Unset: false on a GPU."""

    max_upload_bytes: Count = 20 * 2**20
    """Largest body of a public request, in bytes; more is answered 413."""
    max_batch_bytes: Count = 128 * 2**20
    """Largest body of a public request with many images, in bytes."""
    max_bodies_mib: Count = 1024
    """Limit for the bodies of all public requests, in MiB, counted as they arrive; more are answered 503 with
    Retry-After. A caller (a key, or else an address) may hold as much as it leaves to others: one alone half of it.
    Reading base64 takes about twice as much again."""
    max_operator_bytes: Count = 256 * 2**20
    """Largest body of an operator's request, in bytes; a batch of rollouts carries its images."""
    max_image_pixels: Annotated[int, Field(ge=1, le=89_000_000)] = 40_000_000
    """Largest picture, in pixels, checked in its header before it is decoded. Pillow's own limit is 89 million."""
    max_image_side: Count = 16_384
    """Longest side of a picture, in pixels."""
    min_image_side: Count = 28
    """Shortest side of a picture, in pixels."""
    decoders: Count = 2
    """Processes that decode pictures. Each may take 24 bytes a pixel of `max_image_pixels` while it decodes, beside
    `decoded_mib`."""
    decode_seconds: Seconds = 10.0
    """Time to decode one picture, in seconds; then its process is ended, and the answer is 422."""
    cache_entries: Annotated[int, Field(ge=0)] = 10_000
    """Answers kept for repeatable requests; 0 keeps none. One takes about 2 kB; answers with texts are not kept."""
    decoded_mib: Count = 4096
    """Memory for the decoded pictures of all running requests, 4 bytes a pixel, in MiB; further requests wait. A single
    request that needs more is answered 422. An eighth on top holds pictures of up to a megapixel that still wait."""
    kept_images_mib: Annotated[int, Field(ge=0)] = 256
    """Memory for the trainer's picture files, in MiB: it sends each once, then names it by its digest. They go ten
    minutes after their last use. 0 keeps none."""
    heif: bool = False
    """Accepts HEIC and HEIF pictures too; needs the extra `heif`."""
    url_hosts: Annotated[tuple[Host, ...], NoDecode, BeforeValidator(_split)] = ()
    """Hosts, separated by commas, from which images may be fetched over https; empty: none."""
    url_seconds: Seconds = 10.0
    """Time to fetch an image, in seconds."""
    max_in_flight: Count = 256
    """Public requests whose bodies have arrived at the same time; more are answered 503 with Retry-After."""
    max_connections: Count = 512
    """Connections to each of the two ports at the same time, idle ones included; more are closed at once."""

    request_seconds: Seconds = 60.0
    """Time limit of a public request, its body included, in seconds; then 504. Callers can ask for less."""
    body_seconds: Seconds = 30.0
    """Time for the body of a public request to arrive, in seconds; then 408."""
    header_seconds: Seconds = 10.0
    """Time for the head of a request to arrive, in seconds; then the connection is closed."""
    keep_alive_seconds: Annotated[int, Field(ge=1)] = 75
    """Time a connection without a request stays open, in seconds. Choose more than the gateway's own limit."""
    drain_seconds: Seconds = 60.0
    """Time a swap or a shutdown waits for running requests, in seconds."""
    canary_min_readable: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the canary pictures that a version must answer readably before it may serve."""
    probe_seconds: Seconds = 10.0
    """Time the readiness probe waits for the engine, in seconds."""
    hang_seconds: Seconds = 15.0
    """Time without any sign of life after which the engine is known to hang, in seconds: requests get 503 at once, and
    readiness fails. An engine that computes or reads, but answers nothing, gets ten times as long."""
    hang_exit_seconds: Seconds = 45.0
    """Further time, in seconds, in which a hanging engine may come back; then liveness fails, and the process ends with
    exit code 3."""
    log_format: Literal["json", "text"] | None = None
    """Format of the log on standard error; unset: text on a terminal, JSON elsewhere."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged; health probes are logged at DEBUG."""
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Sends traces to this OpenTelemetry collector over OTLP/HTTP, for example `http://collector:4318`; unset: none.
    Needs the extra `otel`; sampling and headers are set by the SDK's own `OTEL_*` variables."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags override the environment, which overrides the file."""
        return init_settings, Environment(settings_cls), File(settings_cls)

    @model_validator(mode="after")
    def _pixels_in_order(self) -> Settings:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels is larger than max_pixels")
        return self

    @model_validator(mode="after")
    def _room_for_a_body(self) -> Settings:
        if self.max_bodies_mib * 2**20 < 2 * max(self.max_upload_bytes, self.max_batch_bytes):
            raise ValueError(
                "max_bodies_mib must be at least twice max_upload_bytes and max_batch_bytes, which are in bytes"
            )
        return self

    @model_validator(mode="after")
    def _one_master(self) -> Settings:
        if self.follow and self.role == "rollout":
            raise ValueError(
                "a rollout engine cannot follow the pointer: the trainer replaces its weights; use role serve"
            )
        return self

    @property
    def state_folder(self) -> Path:
        """The folder that only this replica writes to."""
        return self.state or self.store

    @property
    def moves_pointer(self) -> bool:
        """True if a promotion here moves the store's pointer."""
        return self.role == "serve" and not self.follow

    @property
    def handover_folder(self) -> Path:
        """The folder in which the trainer hands weights over."""
        return self.handover or self.store / "handover"

    @property
    def key_file(self) -> Path:
        """The file with the operators' key."""
        return self.operator_key_file or self.state_folder / "operator.key"


def operator_key(file: Path) -> str:
    """The key in `file`. A missing file is created with a new key, readable by its owner only.

    Raises UserError if the file holds no key, or cannot be read or written.
    """
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(token_urlsafe(32) + "\n")
        return read_key(file)
    except OSError as error:
        raise UserError(f"the operators' key file {file} cannot be used: {error.strerror}") from error
