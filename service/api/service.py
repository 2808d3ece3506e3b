"""How a route finds the service behind its application."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fastapi import Request

if TYPE_CHECKING:
    from service.app import Service


def service_of(request: Request) -> Service:
    """The service of the application that received `request`."""
    return cast("Service", request.app.state.service)
