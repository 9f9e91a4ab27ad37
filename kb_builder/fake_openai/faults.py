"""Passing faults: each name with what goes over the wire."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.settings import FakeSettings

_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"
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


async def misbehave(
    name: str, request: web.Request, settings: FakeSettings, make_body: Callable[[], bytes]
) -> web.Response:
    """Do what the fault's name says, in place of the answer that `make_body` would give."""
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
            await asyncio.Event().wait()  # cancelled when the client leaves
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
    """An error with the body and the headers that it carries."""
    return web.json_response(error.body(), status=error.status, headers=dict(error.headers))


def cut(request: web.Request, last: bytes = b"") -> web.Response:
    """Send these bytes, if any, as the last ones, and close the connection."""
    transport = request.transport
    if transport is not None:
        if last:
            transport.write(last)
        transport.close()
    return web.Response()  # for the caller's form only: nobody is there to receive it


def _throttle(name: str, settings: FakeSettings) -> web.Response:
    wait = settings.retry_after_s
    headers = {}
    if name == "throttle_seconds":
        headers["retry-after"] = f"{wait:g}"
    elif name == "throttle_ms":
        headers["retry-after-ms"] = f"{wait * 1000:.0f}"
    elif name == "throttle_date":  # dates know whole seconds only
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
