"""Answers of servers that nothing promises: their bodies are read up to a bound, and redirects checked.

Both ways of sending, `direct` and `transport`, use these rules.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from urllib.parse import urlsplit

from data.errors import RunError, TransientError, UniBindError

MEGABYTE = 1_000_000
_PIECE = 64 * 1024
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's window bits
ACCEPTED = ", ".join(name for name in _PACKED if name != "x-gzip")
_CHARSETS = {"iso-8859-1", "latin-1", "latin1", "windows-1252", "cp1252", "iso-8859-15", "us-ascii"}
_METHODS_KEPT = {307, 308}
# Too many open files, in this process or on the machine.
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


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


def check_redirect(method: str, url: str, status: int, target: str) -> None:
    """Refuse a redirect to another address, or one that would drop the request's body."""
    if origin(target) != origin(url):
        raise RunError(elsewhere(target))
    if method == "POST" and status not in _METHODS_KEPT:
        raise RunError(
            f"redirects (status {status}) to the path {urlsplit(target).path}; write the "
            "address that answers as `base_url`"
        )


def elsewhere(target: str) -> str:
    """The error for another address, without its query and user info, which may be secrets."""
    parts = urlsplit(target)
    port = f":{parts.port}" if parts.port else ""
    return (
        f"redirects to another address, {parts.scheme}://{parts.hostname or ''}{port}; prompts and media are "
        "sent to `base_url` alone: if that address is right, write it there"
    )
