"""The service behind a route: its parts, their construction, and the way a request finds them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from evoquality.contract import VersionInfo
from service.api.keys import Keys, Rates
from service.api.readiness import Readiness
from service.configuration.settings import Settings
from service.engine.protocol import Engine
from service.engine.traffic import Traffic
from service.engine.watchdog import Watchdog
from service.images.decoder import Decoder
from service.images.kept import KeptFiles
from service.images.picture import FORMATS, Limits, take_heif
from service.images.remote import Remote
from service.images.workers import workers
from service.judging.cache import AnswerCache
from service.judging.exact_votes import ExactVoting
from service.judging.judge import Judge
from service.judging.rollouts import Rollouts
from service.versions.adapters import Adapters
from service.versions.follower import Follower
from service.versions.store import VersionStore
from service.versions.swap import Swapper
from service.versions.swap_lock import SwapLock


@dataclass(slots=True)
class Service:
    """The parts that both applications share, around one engine."""

    settings: Settings
    key: str
    engine: Engine
    store: VersionStore
    swap_lock: SwapLock
    adapters: Adapters
    judge: Judge
    rollouts: Rollouts
    exact_votes: ExactVoting
    swapper: Swapper
    decoder: Decoder
    keys: Keys | None
    rates: Rates
    watchdog: Watchdog
    readiness: Readiness
    follower: Follower | None
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)


def create_service(settings: Settings, key: str, engine: Engine, store: VersionStore, version: VersionInfo) -> Service:
    """Builds the parts around a warm engine that holds `version`. Raises UserError for a wrong keys file."""
    swap_lock = SwapLock(version)
    traffic = Traffic(settings.sequences_beside_users or max(1, settings.max_num_seqs // 2))
    cache = AnswerCache(settings.cache_entries)
    adapters = Adapters(engine, store, swap_lock, settings.max_lora_rank)
    swapper = Swapper(engine, store, swap_lock, adapters, cache.clear, settings)
    watchdog = Watchdog(engine, settings.hang_seconds, settings.hang_exit_seconds)
    follower = Follower(store, swap_lock, swapper, settings) if settings.role == "serve" else None
    return Service(
        settings=settings,
        key=key,
        engine=engine,
        store=store,
        swap_lock=swap_lock,
        adapters=adapters,
        judge=Judge(engine, swap_lock, traffic, settings.model_name, cache),
        rollouts=Rollouts(engine, swap_lock, traffic, adapters),
        exact_votes=ExactVoting(engine, swap_lock, traffic),
        swapper=swapper,
        decoder=_decoder(settings),
        keys=Keys(settings.keys_file) if settings.keys_file else None,
        rates=Rates(),
        watchdog=watchdog,
        readiness=Readiness(engine, watchdog, swap_lock, follower, settings.probe_seconds),
        follower=follower,
    )


def service_of(request: Request) -> Service:
    """The service of the application that received `request`."""
    return cast(Service, request.app.state.service)


def _decoder(settings: Settings) -> Decoder:
    limits = Limits(
        max_pixels=settings.max_image_pixels,
        min_side=settings.min_image_side,
        max_side=settings.max_image_side,
        max_bytes=settings.max_upload_bytes,
        formats=take_heif() if settings.heif else FORMATS,
    )
    remote = Remote(settings.url_hosts, settings.max_upload_bytes, settings.url_seconds)
    processes = workers(settings.decoders, settings.heif)
    kept = KeptFiles(settings.kept_images_mib * 2**20)
    return Decoder(limits, processes, settings.decoded_mib * 2**20, settings.decode_seconds, remote, kept)
