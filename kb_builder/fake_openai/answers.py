"""The answer to a request: a pure function of its body and the server's seed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from kb_builder.fake_openai.check import tokens
from kb_builder.fake_openai.draws import choose, number, uniform
from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.schema import SchemaError, make_value
from kb_builder.fake_openai.settings import LASTING, FakeSettings, share_of
from kb_builder.fake_openai.texts import REFUSALS, continuation, repeated, sentence

_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”')
_NOTHING_NAMED = "thing"


def answer(
    body: Mapping[str, Any], key: str, settings: FakeSettings, *, prompt_tokens: int
) -> dict[str, Any]:
    """A chat completion. `key` is the body's hash; raises `ApiError` where the request cannot be answered."""
    fault = choose(share_of(LASTING, settings), uniform(settings.seed, key, "lasting"))
    if fault == "policy":
        raise ApiError(
            400,
            "Your request was rejected as a result of our safety system.",
            code="content_policy_violation",
        )
    subject = subject_of(body["messages"])
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices, spent = [], 0
    for index in range(body.get("n") or 1):
        draw = Random(number(settings.seed, key, index))
        text = _full_text(body, subject, draw, settings)
        message, finish = _finish(text, fault, body, draw)
        content = message["content"]
        if content is not None:
            if limit is not None and tokens(content) > limit:
                content, finish = content[: 4 * limit], "length"
            message["content"] = content
            spent += tokens(content)
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": finish})
    return {
        "id": f"chatcmpl-{key[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": spent,
            "total_tokens": prompt_tokens + spent,
        },
        "system_fingerprint": "fp_fake",
    }


def subject_of(messages: list[Mapping[str, Any]]) -> str:
    """The first text in double quotes in the last user message, or `thing`."""
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            text = (
                content
                if isinstance(content, str)
                else " ".join(part["text"] for part in content if part["type"] == "text")
            )
            match = _QUOTED.search(text)
            return (match[1] or match[2]) if match else _NOTHING_NAMED
    return _NOTHING_NAMED


def _full_text(body: Mapping[str, Any], subject: str, draw: Random, settings: FakeSettings) -> str:
    """The whole text of the answer, before it is cut."""

    def text() -> str:
        if settings.duplicate_rate and draw.random() < settings.duplicate_rate:
            return repeated(draw, subject, seed=settings.seed)
        return sentence(draw, subject)

    wanted = body.get("response_format") or {"type": "text"}
    if wanted["type"] == "json_object":
        return json.dumps({"text": text()})
    if wanted["type"] == "json_schema":
        try:
            value = make_value(wanted["json_schema"]["schema"], draw, text)
        except SchemaError as error:
            raise ApiError(400, f"Invalid schema: {error}", param="response_format") from None
        return json.dumps(value, ensure_ascii=False)
    last = body["messages"][-1]
    if last["role"] == "assistant" and isinstance(last.get("content"), str):
        return continuation(draw, last["content"])
    return text()


def _finish(
    text: str, fault: str | None, body: Mapping[str, Any], draw: Random
) -> tuple[dict[str, Any], str]:
    """The message and its finish_reason, after the lasting fault and the stop strings are applied."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if fault == "refusal":
        return message | {"content": REFUSALS[int(draw.random() * len(REFUSALS))]}, "stop"
    if fault == "refusal_field":
        return message | {"content": None, "refusal": REFUSALS[0]}, "stop"
    cut = text[: max(1, int(len(text) * (0.2 + 0.6 * draw.random())))]
    if fault in {"length", "content_filter"}:
        return message | {"content": cut}, fault
    if fault == "torn_content" and body.get("response_format", {}).get("type", "text") != "text":
        return message | {"content": cut}, "stop"
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        before, found, _ = message["content"].partition(stop)
        if found:
            message["content"] = before
    return message, "stop"
