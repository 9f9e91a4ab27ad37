"""One call to a describer: a frozen record, and the key that makes equal calls one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data.files import canonical_json, hash_json

PROTOCOL = "openai.chat.completions"
LIST_SCHEMA = "descriptions"  # the name of the JSON schema that asks for several texts


@dataclass(frozen=True, slots=True)
class Media:
    """A file's content inside a message, named by what it is made from, so that no key needs its pixels.

    `kind` is image, audio or video; `sha256` is the hash of the *file*; `recipe` says how the file becomes
    what is sent (rendering version, size, format). Same file and recipe, same bytes.
    """

    kind: str
    sha256: str
    recipe: str


Content = str | tuple[str | Media, ...]  # a text, or parts in the order they are sent
Messages = tuple[tuple[str, Content], ...]  # (role, content), in the order they are sent


@dataclass(frozen=True, slots=True)
class Request:
    """The final request. Every field is part of its key: nothing here may depend on the run or the machine.

    `endpoint` says who answers (see `client.endpoint_identity`), never with a secret in it. `sample_index`
    tells requests apart that ask the same thing again. `extra` holds further fields of the body, such as
    `response_format`, `stop`, or what only one server understands. `names` holds the parameters that are
    sent under another name than usual; `response_format` is None there where a list of texts was asked for
    without one. An empty `names` is no part of the key.
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
    """The words of a message's content, without its media."""
    return (
        content if isinstance(content, str) else " ".join(part for part in content if isinstance(part, str))
    )


def asked(messages: Messages) -> str:
    """The words of the question: of the user's last message."""
    return next((words(content) for role, content in reversed(messages) if role == "user"), "")


def request_json(request: Request) -> str:
    """The request as canonical JSON: what its key is the hash of, and what the ledger stores."""
    return canonical_json(_plain(request))


def _plain(request: Request) -> dict[str, Any]:
    value = asdict(request)
    if not value["names"]:  # so that requests under the usual names keep the keys that they always had
        del value["names"]
    return value


def request_from_json(text: str) -> Request:
    """The request that `request_json` wrote: the same key, and ready to be sent again."""
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
    """SHA-256 (hex) of the final request. Not in it: API key, time-outs, concurrency, run id, order."""
    return hash_json(_plain(request))


def derived_seed(*parts: object) -> int:
    """A seed of 31 bits from what the request is for: any part differs, the seed differs."""
    return int(hash_json([str(part) for part in parts])[:8], 16) & 0x7FFFFFFF
