"""Files of a batch: write requests, one JSON line each, and read results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RequestError, SampleError, TransientError
from data.show import shorten
from kb_builder.ask.batch.api import ENDPOINT
from kb_builder.ask.endpoint.status import Remedy, check_body, error_for, words_of
from kb_builder.ask.request import Request


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A written batch file: the keys of its lines, and its size in bytes.

    `refused`: keys of requests that cannot be in any file, and why. `unreadable`: keys of those whose media
    cannot be read now; nothing is recorded for them, so the next run asks them again.
    """

    keys: tuple[str, ...]
    refused: Mapping[str, str]
    unreadable: tuple[str, ...]
    bytes: int


def write_file(
    path: Path,
    requests: Iterable[tuple[str, Request]],
    body_for: Callable[[Request], dict[str, Any]],
    *,
    most_bytes: int,
) -> BatchFile:
    """Write requests, one line each, until the file is full. Media are read one by one."""
    keys: list[str] = []
    unreadable: list[str] = []
    refused: dict[str, str] = {}
    size = 0
    with path.open("wb") as file:
        for key, request in requests:
            try:
                body = body_for(request)
            except SampleError:
                unreadable.append(key)
                continue
            except RequestError as error:
                refused[key] = str(error)
                continue
            value = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
            if len(line) > most_bytes:
                refused[key] = f"the request alone is {len(line)} bytes, a batch file holds {most_bytes}"
                continue
            if size + len(line) > most_bytes:
                break
            file.write(line)
            size += len(line)
            keys.append(key)
    return BatchFile(tuple(keys), refused, tuple(unreadable), size)


def read_result(
    value: Mapping[str, Any], *, where: str, remedy: Remedy = lambda said, param, code: None
) -> str:
    """The answer's body (JSON text) of one line of a batch's results. Raises the error found instead."""
    response, error = value.get("response"), value.get("error")
    if not isinstance(response, dict):
        detail = error if isinstance(error, dict) else {"message": "a line with neither response nor error"}
        said = ": ".join(str(detail[name]) for name in ("code", "message") if detail.get(name) is not None)
        raise TransientError(f"{where}: {shorten(said)}")
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        inside = body.get("error") if isinstance(body, dict) else None
        detail = inside if isinstance(inside, dict) else {"message": str(body)}
        code, param = str(detail.get("code") or detail.get("type") or ""), detail.get("param")
        raise error_for(
            status if isinstance(status, int) else 500,
            f"{where}: status {status}: {shorten(words_of(detail.get('message')))}",
            code=code,
            remedy=remedy(
                f"{words_of(detail.get('message'))} {words_of(body)}",
                param if isinstance(param, str) else None,
                code,
            ),
        )
    text = json.dumps(body)
    check_body(text, where=where, remedy=remedy)
    return text


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and value of each line. Broken lines are skipped: their requests count as not answered."""
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("custom_id"), str):
            yield value["custom_id"], value
