"""The fake server: its routes, and how it is started in a process or inside a test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from data.errors import InputError
from kb_builder.fake_openai import batches
from kb_builder.fake_openai.chat import chat, check_key
from kb_builder.fake_openai.errors import ApiError, error_response
from kb_builder.fake_openai.settings import FakeSettings
from kb_builder.fake_openai.state import STATE, State

HOST = "127.0.0.1"
DEFAULT_MODEL = "fake-1"

_LARGEST_UPLOAD = 512 * 2**20
_BACKLOG = 2048  # connections not yet accepted: a run opens a thousand at once
_SHUTDOWN_S = 0.1  # for requests in flight when the server stops; hangs would never end

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(state: State) -> web.Application:
    """Every route of the server."""
    app = web.Application(client_max_size=_LARGEST_UPLOAD)
    app[STATE] = state
    routes: list[tuple[str, str, _Handler]] = [
        ("POST", "/v1/chat/completions", chat),
        ("GET", "/v1/models", _models),
        ("POST", "/v1/files", batches.upload),
        ("GET", "/v1/files", batches.list_files),
        ("GET", "/v1/files/{id}", batches.show_file),
        ("GET", "/v1/files/{id}/content", batches.file_content),
        ("DELETE", "/v1/files/{id}", batches.delete_file),
        ("POST", "/v1/batches", batches.create_batch),
        ("GET", "/v1/batches", batches.list_batches),
        ("GET", "/v1/batches/{id}", batches.show_batch),
        ("POST", "/v1/batches/{id}/cancel", batches.cancel_batch),
        ("GET", "/_fake/stats", _stats),
        ("POST", "/_fake/reset", _reset),
    ]
    for method, path, handler in routes:
        app.router.add_route(method, path, _with_errors(handler))
    return app


@asynccontextmanager
async def serve_fake(
    settings: FakeSettings | None = None, *, port: int = 0, log: Path | None = None
) -> AsyncIterator[str]:
    """Serve on loopback inside the running loop; yields the base URL, which ends in /v1. Port 0: any.

    Raises InputError if the port cannot be used.
    """
    async with _serving(State(settings or FakeSettings(), log), port) as url:
        yield url


async def serve_until_stopped(
    settings: FakeSettings, *, port: int = 0, log: Path | None = None, say: Callable[[str], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM; prints the address and, at the end, the counters."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    state = State(settings, log)
    async with _serving(state, port) as url:
        say(f"listening on {url}")
        await stop.wait()
    say(state.stats.summary())


@asynccontextmanager
async def _serving(state: State, port: int) -> AsyncIterator[str]:
    # Cancelling the handler of a disconnected client ends its hang, and does not count its answer.
    runner = web.AppRunner(
        make_app(state), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise InputError(
                f"port {port} of {HOST} cannot be used ({why}); give another one, or 0 for any free one"
            ) from None
        yield f"http://{HOST}:{runner.addresses[0][1]}/v1"
    finally:
        state.stop()
        await runner.cleanup()


def _with_errors(handler: _Handler) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            request.app[STATE].stats.faults[error.code or str(error.status)] += 1
            return error_response(error)

    return handle


async def _models(request: web.Request) -> web.Response:
    settings = request.app[STATE].settings
    check_key(request, settings)
    names = settings.models or (DEFAULT_MODEL,)
    return web.json_response(
        {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in names],
        }
    )


async def _stats(request: web.Request) -> web.Response:
    return web.json_response(request.app[STATE].stats.to_json())


async def _reset(request: web.Request) -> web.Response:
    request.app[STATE].reset()
    return web.json_response({})
