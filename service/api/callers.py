"""Who asks, and how much they may: dependencies of the public routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.service import service_of
from service.errors import Unauthorized

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def authorise(request: Request, bearer: Bearer) -> None:
    """Lets in who has one of the service's keys; everybody where it has none. Raises Unauthorized."""
    keys = service_of(request).keys
    request.state.key = keys and keys.find(bearer.credentials if bearer else "")
    if keys and not request.state.key:
        raise Unauthorized("Send one of this service's keys as a bearer token.")


async def limit(request: Request) -> AsyncIterator[None]:
    """Counts a request against its key's limits, until it is answered; after `authorise`. Raises RateLimited."""
    if (key := request.state.key) is None:
        yield
        return
    rates = service_of(request).rates
    with rates.running(key):
        await rates.charge(key, 1)
        yield


async def charge(request: Request, images: int) -> None:
    """Makes a request of many images count as many requests; one was counted when it came.

    Raises RateLimited; InvalidRequest if the key never allows so many at once.
    """
    if key := request.state.key:
        await service_of(request).rates.charge(key, images - 1)
