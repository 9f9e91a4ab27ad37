"""Errors in the form of the API, and the scripted faults."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kb_builder.fake_openai.settings import FakeSettings

_TYPES = {401: "invalid_request_error", 429: "rate_limit_error", 408: "timeout"}
_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"
_ODD_429: dict[str, dict[str, str]] = {
    "throttle_inf": {"retry-after": "inf"},
    "throttle_nan": {"retry-after": "nan"},
    "throttle_negative": {"retry-after": "-5"},
    "throttle_years": {"retry-after": "99999999999"},
    "odd_limits": {
        "x-ratelimit-limit-requests": "9" * 5000,
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-requests": "1.2.3s",
        "x-ratelimit-limit-tokens": "inf",
        "x-ratelimit-reset-tokens": "1e999",
    },
}
_ENDLESS = frozenset({"drip", "endless_headers", "endless_events"})


@dataclass(eq=False)
class ApiError(Exception):
    """A status and a message, with the other fields of OpenAI's errors."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = self.type or _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }


_BODY_200: dict[str, Callable[[bytes], tuple[bytes, str]]] = {
    "torn_json": lambda body: (body[: len(body) // 2], "application/json"),
    "empty_body": lambda body: (b"", "application/json"),
    "html": lambda body: (_HTML.format("Log in to the network").encode(), "text/html"),
    "error_body": lambda body: (
        json.dumps(
            {"error": {"message": "The engine is overloaded.", "type": "server_error", "code": None}}
        ).encode(),
        "application/json",
    ),
    "no_choices": lambda body: (_with(body, []), "application/json"),
    "no_message": lambda body: (_with(body, [{"index": 0, "finish_reason": "stop"}]), "application/json"),
}


@cache
def _packed_spaces() -> bytes:
    """64 MB of white space in 64 kB: JSON may hold any amount of it."""
    return gzip.compress(b" " * 64_000_000)


_HOSTILE_200: dict[str, Callable[[bytes], tuple[bytes, dict[str, str]]]] = {
    "huge_body": lambda body: (body + b" " * 32_000_000, {}),
    "endless_gzip": lambda body: (_packed_spaces(), {"content-encoding": "gzip"}),
    "deep_json": lambda body: (b"[" * 200_000 + b"]" * 200_000, {}),
    "bad_bytes": lambda body: (body.replace(b"a", b"\xff", 1), {}),
    "odd_charset": lambda body: (body, {"content-type": "application/json; charset=hex"}),
    "odd_encoding": lambda body: (body, {"content-encoding": "br"}),
}


async def _stream_without_end(name: str, request: web.Request) -> web.StreamResponse:
    """Send bytes without end, until the client disconnects."""
    transport = request.transport
    if name == "endless_headers":
        if transport is not None:
            transport.write(b"HTTP/1.1 200 OK\r\n")
        while transport is not None and not transport.is_closing():
            transport.write(b"x-more: and more\r\n")
            await asyncio.sleep(0.01)
        return web.Response()
    kind = "text/event-stream" if name == "endless_events" else "application/json"
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    piece = b"data: {}\n\n" if name == "endless_events" else b" "
    while True:
        await response.write(piece)
        await asyncio.sleep(0.1)


async def misbehave(
    name: str, request: web.Request, settings: FakeSettings, make_body: Callable[[], bytes]
) -> web.StreamResponse:
    """Commit the named fault instead of the answer that `make_body` makes."""
    if name in _ODD_429:
        return error_response(ApiError(429, "Please slow down.", headers=_ODD_429[name]))
    if name in _ENDLESS:
        return await _stream_without_end(name, request)
    if name in _HOSTILE_200:
        body, headers = _HOSTILE_200[name](make_body())
        return web.Response(body=body, headers={"content-type": "application/json", **headers})
    if name == "redirect_away":  # the same server under another host name
        return web.Response(
            status=307, headers={"location": f"http://localhost:{request.url.port}{request.path}"}
        )
    if name.startswith("throttle"):
        return _throttle(name, settings)
    if name == "502":
        return web.Response(status=502, text=_HTML.format("502 Bad Gateway"), content_type="text/html")
    if name.isdecimal():
        return error_response(ApiError(int(name), _phrase(int(name))))
    if name in _BODY_200:
        body, kind = _BODY_200[name](make_body())
        return web.Response(body=body, content_type=kind)
    if name == "hang":
        if settings.hang_s is None:
            await asyncio.Event().wait()  # cancelled when the client disconnects
        else:
            await asyncio.sleep(settings.hang_s)
        return cut(request)
    body = make_body()
    if name == "disconnect_body":
        return cut(request, _head(len(body)) + body[: len(body) // 2])
    if name == "wrong_length":
        return cut(request, _head(len(body) - 7) + body)
    return cut(request)


def error_response(error: ApiError) -> web.Response:
    """The response of an error."""
    return web.json_response(error.body(), status=error.status, headers=dict(error.headers))


def cut(request: web.Request, last: bytes = b"") -> web.Response:
    """Send these last bytes, if any, and close the connection."""
    transport = request.transport
    if transport is not None:
        if last:
            transport.write(last)
        transport.close()
    return web.Response()  # never sent: the connection is closed


def _throttle(name: str, settings: FakeSettings) -> web.Response:
    wait = settings.retry_after_s
    headers = {}
    if name == "throttle_seconds":
        headers["retry-after"] = f"{wait:g}"
    elif name == "throttle_ms":
        headers["retry-after-ms"] = f"{wait * 1000:.0f}"
    elif name == "throttle_date":  # HTTP dates have whole seconds
        headers["retry-after"] = format_datetime(
            datetime.now(UTC) + timedelta(seconds=math.ceil(wait)), usegmt=True
        )
    return error_response(
        ApiError(429, "Rate limit reached. Please slow down.", code="rate_limit_exceeded", headers=headers)
    )


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Overloaded"


def _head(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()


def _with(body: bytes, choices: list[dict[str, Any]]) -> bytes:
    return json.dumps(json.loads(body) | {"choices": choices}).encode()
