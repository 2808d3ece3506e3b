"""Which routes a service has in which role."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from service.api.service import service_of
from service.contract import Role
from service.errors import WrongRole

_WHY = {
    "serve": "This is a rollout engine: its weights are the trainer's, and change at every step. Ask a serving engine.",
    "rollout": "This engine serves users: its weights change by promotion alone. Ask one started with --role rollout.",
}


def only_in(role: Role) -> Callable[[Request], None]:
    """A dependency that raises WrongRole unless the service runs in `role`."""

    def check(request: Request) -> None:
        if service_of(request).settings.role != role:
            raise WrongRole(_WHY[role])

    return check
