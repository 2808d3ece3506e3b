"""Retries: which failures, and how long to wait.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, stop_after_delay, stop_all, wait_fixed
from tenacity import wait_random_exponential as wait_random

from evoquality.contract import Problem

_ATTEMPTS = 5
_LONGEST_WAIT_S = 60.0
_AWAY = {502, 503, 504}
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class ServiceError(Exception):
    """The service answered with a problem; `problem` has its status and stable code."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s


class Lost(ServiceError):
    """Some images of a batch have no answer, for a reason that passes."""


def policy(repeatable: bool, seconds: float, waiting: Callable[[BaseException], object]) -> dict[str, Any]:
    """Retries requests that never arrived, and those refused with a Retry-After of up to a minute.

    Repeatable calls are also retried after a lost answer, after 503, and after what a gateway says while its service is
    away. There are at least five attempts, and further ones for `seconds`. `waiting` hears the reason of each pause.
    """

    def again(error: BaseException) -> bool:
        if isinstance(error, ServiceError):
            invited = isinstance(error, Lost) or _invites(error.problem, repeatable, seconds > 0)
            return invited and (error.retry_after_s or 0) <= _LONGEST_WAIT_S
        lost = repeatable and not isinstance(error, httpx.TimeoutException)
        return isinstance(error, httpx.TransportError if lost else _NEVER_SENT)

    return {
        "retry": retry_if_exception(again),
        "stop": stop_all(stop_after_attempt(_ATTEMPTS), stop_after_delay(seconds)),
        "wait": _wait,
        "before_sleep": lambda state: waiting(state.outcome.exception()),
        "reraise": True,
    }


def patience(seconds: float) -> dict[str, Any]:
    """Retries for `seconds` while the service may still become ready."""

    def not_yet(error: BaseException) -> bool:
        if isinstance(error, ServiceError):
            return error.problem.status in _AWAY
        return isinstance(error, httpx.TransportError)

    return {
        "retry": retry_if_exception(not_yet),
        "stop": stop_after_delay(seconds),
        "wait": wait_fixed(0.5),
        "reraise": True,
    }


def retry_after(header: str | None) -> float | None:
    """Seconds from now, from a Retry-After header (RFC 9110, 10.2.3): a number of seconds, or a date."""
    if not header:
        return None
    if header.isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def is_outage(error: BaseException) -> bool:
    """True if nothing is wrong with the request: the service is not there, or something in front of it says so."""
    if isinstance(error, ServiceError):
        return error.problem.status in _AWAY and error.problem.code == "http_error"
    return isinstance(error, _NEVER_SENT) or not isinstance(error, httpx.TimeoutException)


def _invites(problem: Problem, repeatable: bool, patient: bool) -> bool:
    """True for refusals that a retry may resolve. Not drain_timeout: each retry makes all users wait.

    A deadline that passed in the service itself is tried again by the patient alone.
    """
    if problem.status == 429 or problem.code == "too_busy":
        return True
    away = problem.status == 503 or (problem.status in _AWAY and (patient or problem.code == "http_error"))
    return repeatable and away and problem.code != "drain_timeout"


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ServiceError) else None
    return asked if asked is not None else wait_random(multiplier=0.2, max=5)(state)
