"""One call to a describer: a frozen record, and the key that makes equal calls one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data.files import canonical_json, hash_json

PROTOCOL = "openai.chat.completions"

Messages = tuple[tuple[str, str], ...]  # (role, content), in the order they are sent


@dataclass(frozen=True, slots=True)
class Request:
    """The final request. Every field is part of its key: nothing here may depend on the run or the machine.

    `endpoint` says who answers (see `client.endpoint_identity`), never with a secret in it. `sample_index`
    tells requests apart that ask the same thing again. `extra` holds further fields of the body, such as
    `response_format`, `stop`, or what only one server understands.
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


def request_json(request: Request) -> str:
    """The request as canonical JSON: what its key is the hash of, and what the ledger stores."""
    return canonical_json(asdict(request))


def request_key(request: Request) -> str:
    """SHA-256 (hex) of the final request. Not in it: API key, time-outs, concurrency, run id, order."""
    return hash_json(asdict(request))


def derived_seed(*parts: object) -> int:
    """A seed of 31 bits from what the request is for: any part differs, the seed differs."""
    return int(hash_json([str(part) for part in parts])[:8], 16) & 0x7FFFFFFF
