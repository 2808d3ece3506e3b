"""One process: the engine, the public port and the operators' port on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
import uvloop
from fastapi import FastAPI
from filelock import FileLock, Timeout

from evoquality.contract import VersionInfo
from service.api.keys import read_keys
from service.api.protocol import patient_protocol
from service.api.service import Service, create_service
from service.app import create_app, create_operator_app
from service.configuration.settings import Settings, operator_key
from service.errors import ProblemError, UserError, VersionError
from service.images.picture import take_heif
from service.images.workers import give_back_freed, keep_freed
from service.observability import metrics
from service.observability.logs import logging_to_stderr
from service.observability.tracing import start_tracing
from service.prompts import PROFILES
from service.ranking import strengths
from service.versions.first import check_beginning, first_version, within_positions
from service.versions.store import VersionStore

WATCH_SECONDS = 0.5
LAST_WORDS_SECONDS = 3.0
"""Time in which a service whose engine died or hung still answers 503, so that callers learn of it."""
ENGINE_DIED, ENGINE_HUNG = 1, 3
"""Exit codes."""

IDLE_CHECK_SECONDS = 0.05
KEPT_BYTES = 8 * 2**20
"""Freed memory that this process keeps, for each block and heap: pictures above two megapixels go back at once."""
CLOSE_SECONDS = 1
"""Time left to requests that outlast the drain."""

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to this process, which runs two servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, which drain it. Returns the exit code: 1 if the engine died, 3 if it hung.

    Raises UserError before serving: settings, addresses, the store, its version.
    """
    with logging_to_stderr(settings.log_format, settings.log_level) as vllm_logging, _ended_by_sigterm():
        return _run(settings, vllm_logging)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM during the start exit at once; the first process of a container ignores it by default."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(settings: Settings, vllm_logging: str) -> int:
    keep_freed(KEPT_BYTES)
    start_tracing(settings.otlp_endpoint, settings.model_name)
    if settings.keys_file:
        read_keys(settings.keys_file)  # reports a wrong file before the slow start
    store = VersionStore(settings.store, settings.state_folder)
    check_beginning(store, settings)
    _make_writable(settings.state_folder)
    key = operator_key(settings.key_file)
    if settings.heif:
        take_heif()
    version = first_version(store, settings)
    settings = within_positions(settings, store.path(version.id))
    if not settings.follow:
        with contextlib.suppress(OSError, ProblemError):  # a later write says why it cannot be written
            store.sweep()
    _set_engine_environment(settings, vllm_logging)
    addresses = (settings.host, settings.port), (settings.operator_host, settings.operator_port)
    with contextlib.ExitStack() as stack:
        if settings.moves_pointer:
            stack.enter_context(_alone_on(store))
        sockets = [stack.enter_context(_bind(*address)) for address in addresses]
        return uvloop.run(_serve(settings, key, store, version, sockets))


@contextlib.contextmanager
def _alone_on(store: VersionStore) -> Iterator[None]:
    """Warns if another service moves the same store's pointer."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(store.root / "serving.lock", blocking=False))
        except Timeout:
            log.warning(
                "another service without --follow uses the store %s: neither will notice what the other promotes",
                store.root,
            )
        except OSError:
            pass  # read-only: promotions are refused
        yield


def _make_writable(folder: Path) -> None:
    """Creates the folder that this replica writes to, if missing. Raises UserError if it cannot be written."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written: give --state a folder that only this replica writes to")


async def _serve(
    settings: Settings, key: str, store: VersionStore, version: VersionInfo, sockets: Sequence[socket.socket]
) -> int:
    from service.engine.vllm_engine import VllmEngine  # takes seconds to import, and reads the environment

    log.info("loading version %s into the engine", version.id)
    profile = PROFILES[version.profile]
    engine = VllmEngine(store.path(version.id), profile, settings)
    log.info("warming the engine up")
    try:
        await asyncio.to_thread(strengths.load)
        await engine.warm_up(version.id, profile)
        service = create_service(settings, key, engine, store, version)
        try:
            share = await service.swapper.canaries.ask(version)
        except VersionError as refusal:
            raise UserError(
                f"the version {version.id} cannot serve ({refusal}): restore the store, or remove canaries/"
                f"{version.id}.json in {settings.state_folder} if the machine changed on purpose"
            ) from refusal
        if share < settings.canary_min_readable:
            log.warning("version %s answers only %.0f %% of the canaries readably", version.id, share * 100)
        metrics.set_version(settings.model_name, version.id)
        metrics.canary_readable.set(share)
        return await answer(service, sockets)
    finally:
        engine.shutdown()


async def answer(service: Service, sockets: Sequence[socket.socket]) -> int:
    """Runs both applications until a signal, or the engine's death or hang. Returns the exit code."""
    apps = create_app(service), create_operator_app(service)
    servers = [_server(app, service.settings) for app in apps]
    closing: list[asyncio.Task[None]] = []

    def drain() -> None:
        if service.readiness.draining:  # a second signal closes at once
            _close(servers)
        service.readiness.draining = True
        if service.swap_lock.is_open:  # let a running swap end
            following.cancel()
        closing.append(asyncio.create_task(_close_when_idle(servers, service.settings.drain_seconds)))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    end = asyncio.create_task(_watch(service, drain))
    reporter = asyncio.create_task(service.readiness.report())
    following = asyncio.create_task(_follow(service))
    trimming = asyncio.create_task(give_back_freed())
    addresses = " and ".join(map(_address, sockets))
    for app in apps:
        app.openapi()  # takes longer than a request may stop the loop
    gc.collect()
    gc.freeze()  # a collection among all objects of torch would stop the loop for 0.3 s
    log.info("serving version %s on %s", service.swap_lock.version.id, addresses)
    await asyncio.gather(*(server.serve([bound]) for server, bound in zip(servers, sockets, strict=True)))
    gc.unfreeze()  # or native libraries complain of leaks
    for task in (end, reporter, following, trimming, *closing):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await end
    return 0


async def _follow(service: Service) -> None:
    if service.follower:
        await service.follower.follow()


async def _close_when_idle(servers: Sequence[_Server], seconds: float) -> None:
    """Closes after the last request is answered. Until then probes and new requests get 503."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(server.server_state.tasks for server in servers):
                await asyncio.sleep(IDLE_CHECK_SECONDS)
    _close(servers)


def _close(servers: Sequence[_Server]) -> None:
    for server in servers:
        server.should_exit = True


async def _watch(service: Service, drain: Callable[[], None]) -> int:
    """Ends the process when its engine dies or hangs, so that a supervisor starts both again. Returns the exit code."""
    async with asyncio.TaskGroup() as group:
        hang = group.create_task(service.watchdog.watch())
        while not service.engine.dead() and not hang.done():
            await asyncio.sleep(WATCH_SECONDS)
        hang.cancel()
    hung = service.watchdog.must_end
    log.critical("the engine %s; the service exits", "hung" if hung else "died")
    if not service.readiness.draining:
        await asyncio.sleep(LAST_WORDS_SECONDS)
        drain()
    if hung:
        drain()  # waits for nothing
    return ENGINE_HUNG if hung else ENGINE_DIED


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


def _address(bound: socket.socket) -> str:
    host, port, *_ = bound.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    """Binds an address before the slow start, so that a taken one is reported at once. Raises UserError."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UserError(f"the service cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return bound


def _set_engine_environment(settings: Settings, logging_config: str) -> None:
    """Sets the variables that vLLM and its child processes read, unless the user set them."""
    vllm_cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm"
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_LOGGING_CONFIG_PATH": logging_config,
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.log_level != "DEBUG":  # what else is said at every start
        defaults |= {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    try:
        _make_writable(vllm_cache)
    except UserError:
        defaults["VLLM_CACHE_ROOT"] = str(settings.state_folder / "vllm-cache")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
