"""Requests to a describer, their keys, and the protocol of describers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol
from urllib.parse import urlsplit

from data.files import canonical_json, hash_json

PROTOCOL = "openai.chat.completions"
LIST_SCHEMA = "descriptions"  # name of the JSON schema of requests for several texts
OPENAI_URL = "https://api.openai.com/v1"
_WHOLE = re.compile(r"[0-9]{1,15}")
_YEAR_S = 366 * 86_400.0
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Media:
    """A file's content inside a message, identified without reading it, so that keys need no pixels.

    `kind` is image, audio or video; `sha256` is the hash of the *file*; `recipe` describes how the sent bytes
    are made from it (rendering version, size, format). The same file and recipe give the same bytes.
    """

    kind: str
    sha256: str
    recipe: str


Content = str | tuple[str | Media, ...]  # a text, or parts in the order they are sent
Messages = tuple[tuple[str, Content], ...]  # (role, content), in the order they are sent


@dataclass(frozen=True, slots=True)
class Request:
    """The final request. Every field is part of its key: no field may depend on the run or the machine.

    `endpoint` identifies the server (`endpoint_identity`) and holds no secret. `sample_index` distinguishes
    repetitions of the same question. `extra` holds additional fields of the body, such as `response_format`,
    `stop`, or those of one server only. `names` holds the parameters that are sent under another name than
    the usual one; `response_format: None` in it means a request for several texts without a schema. An empty
    `names` is not part of the key.
    """

    endpoint: str
    model: str
    messages: Messages
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    sample_index: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = PROTOCOL
    names: Mapping[str, str | None] = field(default_factory=dict)


def words(content: Content) -> str:
    """The text of a message's content, without its media."""
    return (
        content if isinstance(content, str) else " ".join(part for part in content if isinstance(part, str))
    )


def asked(messages: Messages) -> str:
    """The text of the user's last message."""
    return next((words(content) for role, content in reversed(messages) if role == "user"), "")


_FIELDS = tuple(field.name for field in fields(Request))


def request_json(request: Request) -> str:
    """The request as canonical JSON: its key is the hash of this text, and the ledger stores it."""
    return canonical_json(_plain(request))


def _plain(request: Request) -> dict[str, Any]:
    value = {name: getattr(request, name) for name in _FIELDS}
    if not value["names"]:  # keeps the keys of requests with the usual names
        del value["names"]
    return value


def request_from_json(text: str) -> Request:
    """The request that `request_json` wrote: it has the same key and can be sent again."""
    value = json.loads(text)
    messages = tuple((role, _content(content)) for role, content in value.pop("messages"))
    return Request(**value, messages=messages)


def asks_for_list(request: Mapping[str, Any]) -> bool:
    """Whether a stored request (`request_json`, read) asked for several texts in one answer."""
    if "response_format" in request.get("names", {}):
        return True
    wanted = request["extra"].get("response_format")
    schema = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    name = schema.get("name", LIST_SCHEMA) if isinstance(schema, Mapping) else LIST_SCHEMA
    return isinstance(wanted, Mapping) and wanted.get("type") == "json_schema" and name == LIST_SCHEMA


def _content(content: Any) -> Content:
    if isinstance(content, str):
        return content
    return tuple(part if isinstance(part, str) else Media(**part) for part in content)


def request_key(request: Request) -> str:
    """SHA-256 (hex) of the final request. Not in it: API key, timeouts, concurrency, run id, order."""
    return hash_json(_plain(request))


def derived_seed(*parts: object) -> int:
    """A seed of 31 bits that depends on the parts alone."""
    return int(hash_json([str(part) for part in parts])[:8], 16) & 0x7FFFFFFF


class Describer(Protocol):
    """Answers requests. `endpoint` and `model` are part of every request's key."""

    provider: str  # openai | local | fake
    source: str  # online | local | fake: the `source` column
    endpoint: str
    model: str

    async def answer(self, request: Request) -> Reply:
        """Make one attempt at a request; the reply has at least one choice.

        Raises a `DescriberError`, or a `SampleError` where its media cannot be read.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def endpoint_identity(base_url: str) -> str:
    """The server, for request keys: scheme, host, port and path. User info and query may hold secrets."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class Limits:
    """The `x-ratelimit-*` headers of one answer; None for those that are missing.

    `reset_*_s` are the seconds until the whole limit is available again.
    """

    requests: int | None = None
    requests_left: int | None = None
    reset_requests_s: float | None = None
    tokens: int | None = None
    tokens_left: int | None = None
    reset_tokens_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The body as JSON text with at least one choice, and the rate limits in its headers."""

    body: str
    limits: Limits | None = None


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """The rate limits in an answer's headers (OpenAI's names, which gateways copy), or None."""
    limits = Limits(
        requests=_count(headers.get("x-ratelimit-limit-requests")),
        requests_left=_count(headers.get("x-ratelimit-remaining-requests")),
        reset_requests_s=_duration(headers.get("x-ratelimit-reset-requests")),
        tokens=_count(headers.get("x-ratelimit-limit-tokens")),
        tokens_left=_count(headers.get("x-ratelimit-remaining-tokens")),
        reset_tokens_s=_duration(headers.get("x-ratelimit-reset-tokens")),
    )
    return None if limits == Limits() else limits


def _count(value: str | None) -> int | None:
    """A plausible limit of an account, else None."""
    if value is None or not _WHOLE.fullmatch(value.strip()):
        return None
    return int(value)


def _duration(value: str | None) -> float | None:
    """Seconds of `1s`, `6m0s`, `120ms`, `1h2m3.5s` or a bare number of seconds; None beyond a year."""
    if value is None:
        return None
    parts = _PART.findall(value)
    try:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(value)
    except ValueError:
        return None
    return max(0.0, seconds) if seconds <= _YEAR_S else None  # NaN is not smaller than anything
