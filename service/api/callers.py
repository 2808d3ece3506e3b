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


async def running(request: Request) -> AsyncIterator[None]:
    """Counts a request among its key's running ones, until it is answered; after `authorise`. Raises RateLimited."""
    if (key := request.state.key) is None:
        yield
        return
    with service_of(request).rates.running(key):
        yield


async def charge_one(request: Request) -> None:
    """Counts a request against its key's rate; after `authorise`. Raises RateLimited."""
    await charge(request, 1)


async def charge(request: Request, images: int) -> None:
    """Makes a request of many images count as many requests.

    Raises RateLimited; InvalidRequest if the key never allows so many at once.
    """
    if key := request.state.key:
        await service_of(request).rates.charge(key, images)
