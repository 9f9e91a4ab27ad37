"""Download a file over HTTP(S), with resume and checksum.

The bytes so far are in `NAME.part`, and the version of the file that they belong to in `NAME.part.json`, so
that another run resumes there. A file gets its name only when its SHA-256 is right.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from data.errors import InputError, first_line
from data.files import hash_file, write_json
from kb_builder.weights.known import ModelFile

TRIES = 4  # in a row without a single byte
PAUSE_S = 1.0  # before the second try; doubled before each further one
_TIMEOUT = httpx.Timeout(30.0)
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401: "asks for a login", 403: "refuses it"}
_SHA256 = re.compile(r'^"?([0-9a-f]{64})"?$')

logger = logging.getLogger(__name__)

OnBytes = Callable[[int, int | None], None]  # bytes so far, and in all (None: unknown)


@dataclass(frozen=True)
class Fetched:
    """A downloaded file: its SHA-256, and what it was compared with (`nothing`: it is only recorded)."""

    sha256: str
    checked: Literal["list", "server", "nothing"]


class _BrokenOffError(Exception):
    """The connection broke, or the server failed for now: resume."""


@dataclass
class _Answer:
    """What the server states about the whole file."""

    total: int | None
    etag: str | None
    sha256: str | None  # the hub's, of a large file


def fetch(file: ModelFile, target: Path, *, on_bytes: OnBytes = lambda here, total: None) -> Fetched:
    """Download a file to `target`. Raises InputError for a refusal, a wrong checksum, or a failing server.

    A broken connection is retried with pauses. After `TRIES` attempts in a row without a byte it is given up,
    and the bytes so far are kept for another run.
    """
    part, note = (target.with_name(f"{target.name}{end}") for end in (".part", ".part.json"))
    target.parent.mkdir(parents=True, exist_ok=True)
    idle = 0
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
        while True:
            before = _size(part)
            try:
                answer = _fetch_rest(client, file, part, note, on_bytes)
                break
            except _BrokenOffError as broken:
                idle = 0 if _size(part) > before else idle + 1
                if idle >= TRIES:
                    raise InputError(
                        f"{file.url}: {broken}; {_size(part):,} bytes are kept: run the same command again"
                    ) from None
                logger.info("%s: %s; resuming", file.url, broken)
                time.sleep(PAUSE_S * 2**idle)
    found = hash_file(part)
    expected = file.sha256 or answer.sha256
    if expected is not None and found != expected:
        part.unlink()
        note.unlink(missing_ok=True)
        whose = "its list says" if file.sha256 else "its server says"
        raise InputError(f"{file.url}: wrong checksum: SHA-256 is {found}, {whose} {expected}; it is removed")
    part.replace(target)
    note.unlink(missing_ok=True)
    return Fetched(found, "list" if file.sha256 else "server" if answer.sha256 else "nothing")


def _fetch_rest(client: httpx.Client, file: ModelFile, part: Path, note: Path, on_bytes: OnBytes) -> _Answer:
    """Fetch the missing bytes. Raises _BrokenOffError if some are still missing."""
    here, etag = _kept(part, note, file.url)
    headers = {"Accept-Encoding": "identity"}
    if here:
        headers["Range"] = f"bytes={here}-"
        if etag:
            headers["If-Range"] = etag
    try:
        with client.stream("GET", file.url, headers=headers) as response:
            if response.status_code == 416:  # more bytes than the file has
                part.unlink(missing_ok=True)
                raise _BrokenOffError("the server has another version now")
            _check(response, file)
            answer, start = _read_head(response, here)
            total = answer.total if answer.total is not None else file.size
            write_json(note, {"url": file.url, "etag": answer.etag})
            _check_disk(part, None if total is None else total - start)
            with part.open("r+b" if part.exists() else "wb") as out:
                out.truncate(start)
                out.seek(start)
                on_bytes(start, total)
                for block in response.iter_raw():
                    out.write(block)
                    on_bytes(out.tell(), total)
                size = out.tell()
    except httpx.TransportError as error:
        raise _BrokenOffError(first_line(error)) from error
    except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise InputError(f"{file.url}: cannot be fetched ({first_line(error)})") from error
    if total is not None and size < total:
        raise _BrokenOffError(f"it ended after {size:,} of {total:,} bytes")
    return answer


def _kept(part: Path, note: Path, url: str) -> tuple[int, str | None]:
    """The bytes so far, and the ETag of their version; 0 and None for a file of another address."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["url"] == url:
            return _size(part), known["etag"]
    except (OSError, ValueError, KeyError, TypeError):
        logger.debug("%s: nothing to resume", note)
    return 0, None


def _read_head(response: httpx.Response, here: int) -> tuple[_Answer, int]:
    """The server's statement, and the offset at which its bytes begin."""
    start, total = 0, _number(response.headers.get("Content-Length"))
    if response.status_code == 206:
        found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != here:
            raise _BrokenOffError("the server sends another range than requested")
        start, total = here, _number(found[2])
    sha256 = None
    for each in (*response.history, response):  # the hub sends it before its redirect
        match = _SHA256.match(each.headers.get("X-Linked-Etag", ""))
        sha256 = match[1] if match else sha256
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    return _Answer(total, strong, sha256), start


def _check(response: httpx.Response, file: ModelFile) -> None:
    status = response.status_code
    if status in _TRANSIENT:
        raise _BrokenOffError(f"the server answers {status}")
    if status not in {200, 206}:
        why = _REFUSED.get(status, f"answers {status} {response.reason_phrase}".rstrip())
        raise InputError(
            f"{file.url}: the server {why}; download it yourself and put it into the model's folder"
        )


def _check_disk(part: Path, missing: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing is not None and missing > free:
        raise InputError(
            f"{part.parent}: {missing / 2**30:.1f} GiB are missing and {free / 2**30:.1f} GiB are free; free"
            " disk space, or name another folder in UNIBIND_MODELS"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
