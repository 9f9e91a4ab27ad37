"""HTTP client below the `openai` package: bounds every answer, and connects to `base_url` only.

Bounded are a body (unpacked, `max_answer_mb`), its headers (aiohttp: 128 of at most 8 KiB) and redirects
(five, on the same host). The callers end calls that take too long.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import httpx2 as httpx
from openai import DefaultAioHttpClient

from data.errors import RunError, UniBindError
from kb_builder.ask.endpoint.bodies import ACCEPTED, check_redirect, elsewhere, origin, read_text, unreadable
from kb_builder.ask.endpoint.proxies import proxy_for

MOST_REDIRECTS = 5
_STREAMED = "x-stainless-raw-response"  # how the vendor's client marks a download that is written in pieces


class BoundedClient(DefaultAioHttpClient):
    """The vendor's HTTP client for one base URL."""

    def __init__(self, base_url: str, *, most_bytes: int) -> None:
        self._origin = origin(base_url)
        self._most_bytes = most_bytes
        proxy = proxy_for(base_url)
        scheme = urlsplit(base_url).scheme
        if proxy is not None and urlsplit(proxy.url).scheme not in {"http", "https"}:
            raise RunError(
                f"{proxy.shown}: only http:// and https:// proxies are supported; add the host of `base_url` "
                "to NO_PROXY, or name such a proxy"
            )
        super().__init__(
            max_redirects=MOST_REDIRECTS,
            # The proxy is chosen here; None disables the choice that each library would make.
            **({"mounts": {f"{scheme}://": None}} if proxy is None else {"proxy": proxy.url}),
        )

    def _init_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        return _Bounded(super()._init_transport(*args, **options), self._origin, self._most_bytes)

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        return _Bounded(super()._init_proxy_transport(*args, **options), self._origin, self._most_bytes)


class _Bounded(httpx.AsyncBaseTransport):
    def __init__(
        self, inner: httpx.AsyncBaseTransport, origin: tuple[str, str, int | None], most_bytes: int
    ) -> None:
        self._inner = inner
        self._origin = origin
        self._most_bytes = most_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if origin(str(request.url)) != self._origin:
            raise RunError(elsewhere(str(request.url)))
        request.headers["accept-encoding"] = ACCEPTED
        try:
            response = await self._inner.handle_async_request(request)
            if 300 <= response.status_code < 400:
                await response.aclose()
                target = str(request.url.join(response.headers.get("location", "")))
                check_redirect(request.method, str(request.url), response.status_code, target)
                return httpx.Response(response.status_code, headers=response.headers, request=request)
            if request.headers.get(_STREAMED) == "stream":
                return response
            return await self._read_whole(request, response)
        except (UniBindError, httpx.TransportError, aiohttp.ClientError):
            raise
        except Exception as error:
            raise unreadable(error) from error

    async def _read_whole(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        try:
            text = await read_text(
                cast("AsyncIterable[bytes]", response.stream),
                response.headers,
                most_bytes=self._most_bytes,
                strict=response.is_success,
            )
        finally:
            await response.aclose()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in {"content-encoding", "content-length", "content-type", "transfer-encoding"}
        ]
        headers.append(("content-type", "application/json; charset=utf-8"))
        return httpx.Response(response.status_code, headers=headers, content=text.encode(), request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()
