"""The two HTTP applications: public routes, and operators' routes on a port of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from service.api.cors import OperatorCorsMiddleware, public_cors
from service.api.dependencies import Admission, authorise, charge_one, check_open, only_in, require_key, running
from service.api.observe import ObserveMiddleware
from service.api.openapi import EVERYWHERE, document_problems
from service.api.prefix import PrefixMiddleware
from service.api.problems import BodyLimitMiddleware, add_problem_handlers
from service.api.routes import batch, health, internal, judge, page, versions
from service.api.service import Service
from service.api.watch import Watch
from service.observability.tracing import trace_requests

_DESCRIPTION = "Scores and compares the perceptual quality of images, and improves itself while it serves."


def create_app(service: Service) -> FastAPI:
    """The public application: scores, preferences, versions, health, the page."""
    settings = service.settings
    larger = dict.fromkeys(batch.PATHS, settings.max_batch_bytes)
    app = _bare_app("EvoQuality Service", service, settings.root_path)
    app.add_middleware(Watch, seconds=settings.request_seconds, body_seconds=settings.body_seconds)
    _add_outer_middleware(app, settings.max_upload_bytes, larger, settings.origins)
    admission = Admission(settings.max_in_flight, settings.max_bodies_mib * 2**20)
    known, one = Depends(authorise), Depends(charge_one)
    work = [known, Depends(only_in("serve")), Depends(admission), one]
    for judged in (judge.router, batch.router):
        app.include_router(judged, dependencies=work)
    for listing in (versions.router, versions.info_router):
        app.include_router(listing, dependencies=[known, Depends(running), one])
    app.include_router(page.router)
    return app


def create_operator_app(service: Service) -> FastAPI:
    """The operators' application: promotion, rollback, adapters, the trainer's requests, and metrics without a key."""
    app = _bare_app("EvoQuality Service: operators", service)
    app.add_middleware(OperatorCorsMiddleware, origins=service.settings.operator_origins)
    _add_outer_middleware(app, service.settings.max_operator_bytes, {})
    app.include_router(health.scraped)
    operators = [Depends(require_key(service.key)), Depends(check_open)]
    for router in (internal.router, versions.info_router):
        app.include_router(router, dependencies=operators)
    return app


def _bare_app(title: str, service: Service, root_path: str = "") -> FastAPI:
    app = FastAPIOffline(
        title=title,
        description=_DESCRIPTION,
        redoc_url=None,
        responses=EVERYWHERE,
        redirect_slashes=False,
        root_path=root_path,
    )
    app.state.service = service
    document_problems(app)
    add_problem_handlers(app)
    app.include_router(health.router)
    if service.settings.otlp_endpoint:
        trace_requests(app)
    return app


def _add_outer_middleware(app: FastAPI, max_bytes: int, larger: Mapping[str, int], origins: Sequence[str] = ()) -> None:
    """Adds the outermost middleware; the last one added is the outermost of all."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_bytes, larger=larger)
    if origins:
        app.add_middleware(public_cors, origins=origins)
    app.add_middleware(ObserveMiddleware)
    app.add_middleware(PrefixMiddleware)
