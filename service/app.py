"""The two HTTP applications: the public one, and the operators' on a port of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from service.api.admission import Admission, check_open
from service.api.callers import authorise, charge_one, running
from service.api.cors import OperatorCorsMiddleware
from service.api.keys import Keys
from service.api.observe import ObserveMiddleware
from service.api.openapi import EVERYWHERE, document_problems
from service.api.problems import BodyLimitMiddleware, add_problem_handlers
from service.api.rates import Rates
from service.api.readiness import Readiness
from service.api.roles import only_in
from service.api.routes import batch, health, info, internal, judge, page, rank, versions
from service.api.watch import Watch
from service.configuration.settings import Settings
from service.contract import VersionInfo
from service.engine.protocol import Engine
from service.engine.traffic import Traffic
from service.images.decoder import Decoder
from service.images.picture import FORMATS, Limits, take_heif
from service.images.remote import Remote
from service.judging.cache import AnswerCache
from service.judging.exact_votes import ExactVoting
from service.judging.judge import Judge
from service.judging.rollouts import Rollouts
from service.observability.tracing import trace_requests
from service.versions.adapters import Adapters
from service.versions.follower import Follower
from service.versions.gate import VersionGate
from service.versions.store import VersionStore
from service.versions.swap import Swapper

_DESCRIPTION = "Scores and compares the perceptual quality of images, and improves itself while it serves."


@dataclass(slots=True)
class Service:
    """What both applications share: one engine behind one gate."""

    settings: Settings
    key: str
    engine: Engine
    store: VersionStore
    gate: VersionGate
    adapters: Adapters
    judge: Judge
    rollouts: Rollouts
    exact_votes: ExactVoting
    swapper: Swapper
    decoder: Decoder
    keys: Keys | None
    rates: Rates
    readiness: Readiness
    follower: Follower | None
    draining: bool = False


def create_service(settings: Settings, key: str, engine: Engine, store: VersionStore, version: VersionInfo) -> Service:
    """Puts the parts together around a warm engine that holds `version`. Raises ValueError for a wrong keys file."""
    gate = VersionGate(version)
    traffic = Traffic(settings.rollouts_beside_users)
    cache = AnswerCache(settings.cache_entries)
    adapters = Adapters(engine, store, gate, settings.max_lora_rank)
    swapper = Swapper(engine, store, gate, adapters, cache.clear, settings)
    return Service(
        settings=settings,
        key=key,
        engine=engine,
        store=store,
        gate=gate,
        adapters=adapters,
        judge=Judge(engine, gate, traffic, settings.model_name, cache),
        rollouts=Rollouts(engine, gate, traffic, adapters),
        exact_votes=ExactVoting(engine, gate, traffic),
        swapper=swapper,
        decoder=_decoder(settings),
        keys=Keys(settings.keys_file) if settings.keys_file else None,
        rates=Rates(),
        readiness=Readiness(),
        follower=Follower(store, gate, swapper, settings) if settings.follow else None,
    )


def create_app(service: Service) -> FastAPI:
    """The public application: scores, preferences, versions, health, the page."""
    settings = service.settings
    larger = dict.fromkeys(batch.PATHS + rank.PATHS, settings.max_batch_bytes)
    app = _bare_app("EvoQuality Service", service)
    app.add_middleware(Watch, seconds=settings.request_seconds, body_seconds=settings.body_seconds)
    _add_outer_middleware(app, settings.max_upload_bytes, larger)
    admission = Admission(settings.max_in_flight, settings.max_bodies_mib * 2**20)
    known, one = Depends(authorise), Depends(charge_one)
    work = [known, Depends(only_in("serve")), Depends(admission), Depends(running)]
    app.include_router(judge.router, dependencies=[*work, one])
    for many in (batch.router, rank.router):  # they count their images once they know them
        app.include_router(many, dependencies=work)
    for listing in (versions.router, info.router):
        app.include_router(listing, dependencies=[known, Depends(running), one])
    app.include_router(page.router)
    return app


def create_operator_app(service: Service) -> FastAPI:
    """The operators' application: promotion, rollback, adapters, the trainer's questions; metrics, open."""
    app = _bare_app("EvoQuality Service: operators", service)
    app.add_middleware(OperatorCorsMiddleware, origins=service.settings.operator_origins)
    _add_outer_middleware(app, service.settings.max_operator_bytes, {})
    app.include_router(health.scraped)
    operators = [Depends(internal.require_key(service.key)), Depends(check_open)]
    for router in (internal.router, info.router):  # the trainer has the operators' key, but may lack a caller's
        app.include_router(router, dependencies=operators)
    return app


def _bare_app(title: str, service: Service) -> FastAPI:
    app = FastAPIOffline(title=title, description=_DESCRIPTION, redoc_url=None, responses=EVERYWHERE)
    app.state.service = service
    document_problems(app)
    add_problem_handlers(app)
    app.include_router(health.router)
    if service.settings.otlp_endpoint:
        trace_requests(app)
    return app


def _add_outer_middleware(app: FastAPI, max_bytes: int, larger: Mapping[str, int]) -> None:
    """What stands around all else: the last one added is the outermost."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_bytes, larger=larger)
    app.add_middleware(ObserveMiddleware)


def _decoder(settings: Settings) -> Decoder:
    limits = Limits(
        max_pixels=settings.max_image_pixels,
        min_side=settings.min_image_side,
        max_side=settings.max_image_side,
        max_bytes=settings.max_upload_bytes,
        formats=take_heif() if settings.heif else FORMATS,
    )
    remote = Remote(settings.url_hosts, settings.max_upload_bytes, settings.url_seconds)
    return Decoder(limits, settings.decoders, settings.decoded_mib * 2**20, remote)
