"""HTTP client below the `openai` package: bounds every answer, and connects to `base_url` only.

Bounded are a body (unpacked, `max_answer_mb`), its headers (aiohttp: 128 of at most 8 KiB) and redirects
(five, on the same host). The callers end calls that take too long.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2 as httpx
from openai import DefaultAioHttpClient

from data.errors import RunError, TransientError, UniBindError
from kb_builder.ask.endpoint.proxies import proxy_for

MOST_REDIRECTS = 5
MEGABYTE = 1_000_000
_PIECE = 64 * 1024
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's window bits
ACCEPTED = ", ".join(name for name in _PACKED if name != "x-gzip")
_STREAMED = "x-stainless-raw-response"  # how the vendor's client marks a download that is written in pieces
_CHARSETS = {"iso-8859-1", "latin-1", "latin1", "windows-1252", "cp1252", "iso-8859-15", "us-ascii"}
_METHODS_KEPT = {307, 308}


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


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


# Too many open files, in this process or on the machine.
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}


class _Bounded(httpx.AsyncBaseTransport):
    def __init__(
        self, inner: httpx.AsyncBaseTransport, origin: tuple[str, str, int | None], most_bytes: int
    ) -> None:
        self._inner = inner
        self._origin = origin
        self._most_bytes = most_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if origin(str(request.url)) != self._origin:
            raise RunError(_elsewhere(str(request.url)))
        request.headers["accept-encoding"] = ACCEPTED
        try:
            response = await self._inner.handle_async_request(request)
            if 300 <= response.status_code < 400:
                await response.aclose()
                check_redirect(request.method, request.url, response.status_code, response.headers)
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
                response.stream,
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


def unreadable(error: Exception) -> UniBindError:
    """The error for any error of a parser on a damaged head or body."""
    if isinstance(error, OSError) and error.errno in _TOO_MANY_FILES:  # a retry would pay again
        return RunError(
            f"the answer cannot be read: {os.strerror(error.errno)} on this machine; raise the limit "
            "(ulimit -n), or lower `concurrency`, then run again: nothing is lost"
        )
    return TransientError(f"the answer cannot be read: {type(error).__name__}: {error}", maybe_paid=True)


async def read_text(
    stream: AsyncIterable[bytes], headers: Mapping[str, str], *, most_bytes: int, strict: bool
) -> str:
    """The text of a body, unpacked. Raises TransientError beyond `most_bytes`; `strict` as in `decoded`."""
    encoding = headers.get("content-encoding", "").strip().lower()
    body = bytearray()
    async for piece in stream if encoding in {"", "identity"} else _unpacked(stream, encoding):
        body += piece
        if len(body) > most_bytes:
            raise TransientError(
                f"the answer has more than {most_bytes / MEGABYTE:g} MB (`max_answer_mb`): not read further",
                maybe_paid=True,
            )
    return decoded(bytes(body), headers.get("content-type", ""), strict=strict)


def decoded(body: bytes, content_type: str, *, strict: bool) -> str:
    """The text of a body: UTF-8 (as JSON should be), else UTF-16, UTF-32 or a known charset in its header.

    Charsets in headers are not trusted: some are not charsets of text. Bytes that cannot be decoded raise
    TransientError if `strict` (the answer was damaged on its way), and are replaced otherwise.
    """
    if body.isascii():  # as most are
        return body.decode("ascii")
    said = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    names: list[str] = ["utf-8-sig", json.detect_encoding(body[:4])]
    if said is not None and said[1].lower() in _CHARSETS:
        names.append(said[1].lower())
    for name in names:
        try:
            return body.decode(name)
        except UnicodeDecodeError:
            continue
    if strict:
        raise TransientError("the answer is no text in UTF-8: it was damaged on its way", maybe_paid=True)
    return body.decode("utf-8", errors="replace")


async def _unpacked(stream: AsyncIterable[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The unpacked bytes of a packed body, in small pieces at any compression ratio."""
    if encoding not in _PACKED:
        raise TransientError(
            f"the answer is packed by {encoding[:40]!r}, which was not asked for", maybe_paid=True
        )
    unpack = zlib.decompressobj(_PACKED[encoding])
    async for piece in stream:
        left = piece
        while left and not unpack.eof:
            try:
                out = unpack.decompress(left, _PIECE)
            except zlib.error as error:
                raise TransientError(f"the answer cannot be unpacked: {error}", maybe_paid=True) from None
            left = unpack.unconsumed_tail
            if out:
                yield out
    if not unpack.eof:
        raise TransientError("the packed answer ends early", maybe_paid=True)


def check_redirect(method: str, url: httpx.URL, status: int, headers: Mapping[str, str]) -> None:
    """Refuse a redirect to another address, or one that would drop the request's body."""
    target = str(url.join(headers.get("location", "")))
    if origin(target) != origin(str(url)):
        raise RunError(_elsewhere(target))
    if method == "POST" and status not in _METHODS_KEPT:
        raise RunError(
            f"redirects (status {status}) to the path {urlsplit(target).path}; write the "
            "address that answers as `base_url`"
        )


def _elsewhere(target: str) -> str:
    """The error for another address, without its query and user info, which may be secrets."""
    parts = urlsplit(target)
    port = f":{parts.port}" if parts.port else ""
    return (
        f"redirects to another address, {parts.scheme}://{parts.hostname or ''}{port}; prompts and media are "
        "sent to `base_url` alone: if that address is right, write it there"
    )
