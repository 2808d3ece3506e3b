"""One process: the engine, the public port and the operators' port on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
import uvloop
from fastapi import FastAPI

from service.api.keys import read_keys
from service.api.protocol import patient_protocol
from service.app import Service, create_app, create_operator_app, create_service
from service.configuration.settings import Settings, operator_key
from service.contract import VersionInfo
from service.engine.canary import readable_share
from service.images.picture import take_heif
from service.observability import metrics
from service.observability.logs import logging_to_stderr
from service.observability.tracing import start_tracing
from service.prompts import PROFILES
from service.ranking import strengths
from service.versions.importing import import_checkpoint
from service.versions.store import VersionStore

WATCH_SECONDS = 0.5
LAST_WORDS_SECONDS = 3.0
"""How long a service whose engine died goes on answering 503, so that callers learn of it."""

IDLE_CHECK_SECONDS = 0.05
CLOSE_SECONDS = 1
"""What requests have left that outlast the drain."""

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process: there are two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, which drain. Returns the exit status, 1 if the engine died.

    Raises before serving: ValueError (settings), OSError (addresses, store), ServiceError (the version).
    """
    with logging_to_stderr(settings.log_format, settings.log_level) as vllm_logging:
        return _run(settings, vllm_logging)


def _run(settings: Settings, vllm_logging: str) -> int:
    start_tracing(settings.otlp_endpoint, settings.model_name)
    key = operator_key(settings.key_file)
    if settings.keys_file:
        read_keys(settings.keys_file)  # a wrong file is told before the slow start
    if settings.heif:
        take_heif()
    store = VersionStore(settings.store)
    version = first_version(store, settings)
    _set_engine_environment(settings, vllm_logging)
    addresses = (settings.host, settings.port), (settings.operator_host, settings.operator_port)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_bind(*address)) for address in addresses]
        return uvloop.run(_serve(settings, key, store, version, sockets))


def first_version(store: VersionStore, settings: Settings) -> VersionInfo:
    """The version to begin with: the active one, or `settings.checkpoint` imported and activated.

    Raises ValueError if there is neither; VersionError if its files are not those of its manifest.
    """
    active = store.active()
    if active is None:
        if settings.role == "rollout":
            raise ValueError(f"the store {settings.store} has no active version: start the serving engine first")
        if settings.checkpoint is None:
            raise ValueError(f"the store {settings.store} has no active version: give a checkpoint")
        info = import_checkpoint(store, settings.checkpoint, settings.profile)
        active = store.activate(info.id)
    store.verify(active.version)
    info = store.info(active.version)
    answer = PROFILES[info.profile].score_tokens
    if answer >= settings.max_model_len:
        raise ValueError(
            f"max_model_len is {settings.max_model_len}, but answers of the profile {info.profile} take up to {answer} "
            f"tokens beside the question and the pictures: set at least {4 * answer}"
        )
    return info


async def _serve(
    settings: Settings, key: str, store: VersionStore, version: VersionInfo, sockets: Sequence[socket.socket]
) -> int:
    from service.engine.vllm_engine import VllmEngine  # seconds of imports, after the environment is set

    engine = VllmEngine(store.path(version.id), settings)
    try:
        profile = PROFILES[version.profile]
        await asyncio.to_thread(strengths.load)
        await engine.warm_up(version.id, profile)
        share = await readable_share(engine, profile)
        if share < settings.canary_min_readable:
            log.warning("version %s answers only %.0f %% of the canaries readably", version.id, share * 100)
        metrics.set_version(settings.model_name, version.id)
        metrics.canary_readable.set(share)
        return await answer(create_service(settings, key, engine, store, version), sockets)
    finally:
        engine.shutdown()


async def answer(service: Service, sockets: Sequence[socket.socket]) -> int:
    """Runs both applications until a signal or the engine's death. Returns the exit status."""
    servers = [_server(app, service.settings) for app in (create_app(service), create_operator_app(service))]
    closing: list[asyncio.Task[None]] = []

    def drain() -> None:
        if service.draining:  # asked twice: at once
            _close(servers)
        service.draining = True
        closing.append(asyncio.create_task(_close_when_idle(servers, service.settings.drain_seconds)))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    watchdog = asyncio.create_task(_watch(service, drain))
    reporter = asyncio.create_task(service.readiness.report(service))
    addresses = " and ".join("{}:{}".format(*bound.getsockname()) for bound in sockets)
    log.info("serving version %s on %s", service.gate.version.id, addresses)
    await asyncio.gather(*(server.serve([bound]) for server, bound in zip(servers, sockets, strict=True)))
    for task in (watchdog, reporter, *closing):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await watchdog
    return 0


async def _close_when_idle(servers: Sequence[_Server], seconds: float) -> None:
    """Goes on listening, so that probes and newcomers are told 503, until the last request has its answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(server.server_state.tasks for server in servers):
                await asyncio.sleep(IDLE_CHECK_SECONDS)
    _close(servers)


def _close(servers: Sequence[_Server]) -> None:
    for server in servers:
        server.should_exit = True


async def _watch(service: Service, drain: Callable[[], None]) -> int:
    """Ends the process after its engine: a supervisor starts both anew."""
    while not service.engine.dead():
        await asyncio.sleep(WATCH_SECONDS)
    if not service.draining:
        log.critical("the engine died; the service exits")
        await asyncio.sleep(LAST_WORDS_SECONDS)
        drain()
    return 1


def _server(app: FastAPI, settings: Settings) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=patient_protocol(settings.header_seconds, settings.max_connections),
            ws="none",
            timeout_keep_alive=settings.keep_alive_seconds,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )


def _bind(host: str, port: int) -> socket.socket:
    """Takes an address before the slow start, so that a taken one is told at once. Raises OSError."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


def _set_engine_environment(settings: Settings, logging_config: str) -> None:
    """What vLLM and its child processes read from the environment; what the user set stays."""
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_LOGGING_CONFIG_PATH": logging_config,
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
