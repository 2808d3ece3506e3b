"""The service's failures: problems that a caller meets, and mistakes that a person must correct.

UserError                    a setting, a file or a folder; the command ends with this sentence and exit code 2

ProblemError                 the base of every problem that a caller can meet: status, stable code, title
├── InvalidRequest      422  fields
│   └── NotSpelled           a model whose tokenizer does not spell numbers digit by digit
├── NoExactVotes        422  the model answers samples only
├── InvalidImage        422  bytes that are not an acceptable picture
├── UrlRefused          422  this service does not fetch from that address
├── UrlFailed           422  no image could be fetched from that address
├── Unauthorized        401  key missing or wrong
├── RateLimited         429  the key's own limit
├── BodyTimeout         408  the body arrived too slowly
├── DeadlineExceeded    504  the answer took longer than the service or the caller allows
├── UnknownVersion      404
├── UnknownAdapter      404
├── UnknownWeights      404  handed-over weights are missing
├── UnknownImages       404  a digest stands for a picture that the service does not keep
├── VersionError        422  a version failed its checks and never serves
├── VersionConflict     409  the active version is another one
├── NotActive           409  the store's pointer, which this replica follows, names another version
├── ReadOnlyStore       409  this replica cannot write the store
├── WrongRole           409  a service of this role does not answer such requests
├── AdapterNameUsed     409  a name is never used twice
├── AdapterRefused      422
├── LinkInStore         409  a path of the store is a link, or leads through one
├── StoreFailure        507  the store could not be written
├── PointerFailure      507  the store's pointer could not be moved; nothing changed
├── DrainTimeout        503  a swap waited too long for running requests; nothing changed
├── TooBusy             503  the replica is full
├── NotReady            503  starting or draining
├── NotFollowing        503  the store's active version cannot be loaded; the one before it answers on
├── Swapping            503  the deadline passed, or the trainer's request gave way, while weights were being replaced
├── EngineFailure       503  the engine failed one request
├── EngineHangs         503  the engine shows no sign of life; the process exits unless it comes back
└── EngineDead          503  the engine is gone; the process is about to exit

Details reach the caller: they hold no paths, no addresses and no text of other exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class UserError(Exception):
    """A mistake that a person must correct before the command can work. The text is one sentence without its stop."""


class ProblemError(Exception):
    """Base of all failures that become an RFC 9457 problem."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None
    images: list[str] | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(ProblemError):
    status, code, title = 422, "invalid_request", "Invalid request"


class NotSpelled(InvalidRequest):
    """The tokenizer does not spell numbers digit by digit. Callers see an invalid request."""


class NoExactVotes(ProblemError):
    status, code, title = 422, "no_exact_votes", "The model has no exact votes"


class InvalidImage(ProblemError):
    status, code, title = 422, "invalid_image", "Invalid image"


class Unauthorized(ProblemError):
    status, code, title = 401, "unauthorized", "Key required"


class RateLimited(ProblemError):
    """`retry_after_s`: seconds until the same request passes if the key asks nothing else."""

    status, code, title, retry_after_s = 429, "rate_limited", "Too many requests with this key", 1

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class BodyTimeout(ProblemError):
    status, code, title = 408, "body_timeout", "The body came too slowly"


class DeadlineExceeded(ProblemError):
    status, code, title = 504, "deadline_exceeded", "Deadline exceeded"


class UrlRefused(ProblemError):
    status, code, title = 422, "url_refused", "Image address refused"


class UrlFailed(ProblemError):
    status, code, title = 422, "url_failed", "Image could not be fetched"


class UnknownVersion(ProblemError):
    status, code, title = 404, "unknown_version", "Unknown version"


class UnknownAdapter(ProblemError):
    status, code, title = 404, "unknown_adapter", "Unknown adapter"


class UnknownWeights(ProblemError):
    status, code, title = 404, "unknown_weights", "Unknown weights"


class UnknownImages(ProblemError):
    """`images`: the digests."""

    status, code, title = 404, "unknown_images", "Unknown images"

    def __init__(self, detail: str, images: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.images = list(images)


class VersionError(ProblemError):
    """`reason` is a stable word for the failed check; the detail begins with it."""

    status, code, title = 422, "version_refused", "Version refused"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class VersionConflict(ProblemError):
    status, code, title = 409, "version_conflict", "Version conflict"


class NotActive(ProblemError):
    status, code, title = 409, "not_active", "Not the store's active version"


class ReadOnlyStore(ProblemError):
    status, code, title = 409, "read_only_store", "The store is read-only here"


class WrongRole(ProblemError):
    status, code, title = 409, "wrong_role", "Wrong role for this request"


class AdapterNameUsed(ProblemError):
    status, code, title = 409, "adapter_name_used", "Adapter name already used"


class AdapterRefused(ProblemError):
    status, code, title = 422, "adapter_refused", "Adapter refused"


class LinkInStore(ProblemError):
    status, code, title = 409, "link_in_store", "A link in the store"


class StoreFailure(ProblemError):
    status, code, title = 507, "store_failure", "The store could not be written"


class PointerFailure(ProblemError):
    status, code, title = 507, "pointer_failure", "The store's pointer could not be moved"


class DrainTimeout(ProblemError):
    status, code, title, retry_after_s = 503, "drain_timeout", "Running requests did not end in time", 5


class TooBusy(ProblemError):
    status, code, title, retry_after_s = 503, "too_busy", "Too many requests in flight", 1


class NotReady(ProblemError):
    status, code, title, retry_after_s = 503, "not_ready", "Not ready", 5


class NotFollowing(ProblemError):
    status, code, title, retry_after_s = 503, "not_following", "Not on the store's active version", 5


class Swapping(ProblemError):
    status, code, title, retry_after_s = 503, "swapping", "The weights are being replaced", 5


class EngineFailure(ProblemError):
    status, code, title, retry_after_s = 503, "engine_failure", "The engine failed this request", 1


class EngineHangs(ProblemError):
    status, code, title, retry_after_s = 503, "engine_hangs", "The engine does not answer", 10


class EngineDead(ProblemError):
    status, code, title, retry_after_s = 503, "engine_dead", "The engine is dead", 30
