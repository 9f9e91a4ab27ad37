"""POST /v1/chat/completions: admission, the scripted fault, and the answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from kb_builder.fake_openai.answers import answer
from kb_builder.fake_openai.check import check_request
from kb_builder.fake_openai.draws import choose, request_hash, uniform
from kb_builder.fake_openai.errors import ApiError, cut, error_response, misbehave
from kb_builder.fake_openai.limits import take
from kb_builder.fake_openai.settings import HOSTILE, PASSING, FakeSettings, share_of
from kb_builder.fake_openai.state import STATE, State, append_line

_EXTRA = "Extra inputs are not permitted"


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer one request, or fail as scripted."""
    state = request.app[STATE]
    settings, stats = state.settings, state.stats
    stats.requests += 1
    away = _away(settings, stats.seconds())
    if away is not None:
        stats.faults[away] += 1
        if away == "disconnect":
            return cut(request)
        raise ApiError(503, "The server is not available right now.", code=None)
    check_key(request, settings)
    body = _read(await request.read())
    prompt_tokens = check_request(body)
    check_model(body["model"], settings)
    check_fields(body, settings)
    if stats.first_request is None:
        stats.first_request = time.monotonic()
    key = request_hash(body)
    stats.asked[key] += 1
    nth = stats.asked[key]
    stats.in_flight += 1
    stats.most_in_flight = max(stats.most_in_flight, stats.in_flight)
    try:
        headers = _admit(state, prompt_tokens + _most_tokens(body))
        fault = choose(share_of([*PASSING, *HOSTILE], settings), uniform(settings.seed, key, nth))
        if fault is None or not fault.startswith("throttle"):  # a rate limit refuses at once
            delay = settings.latency_s + settings.jitter_s * uniform(settings.seed, key, nth, "jitter")
            if delay > 0:
                await asyncio.sleep(delay)
        if fault is not None:
            stats.faults[fault] += 1
            return await misbehave(
                fault,
                request,
                settings,
                lambda: _json(answer(body, key, settings, prompt_tokens=prompt_tokens)),
            )
        return _answer(state, body, key, prompt_tokens, headers)
    finally:
        stats.in_flight -= 1


def check_key(request: web.Request, settings: FakeSettings) -> None:
    """Raise the 401 of a wrong API key; it quotes the key, as real servers do."""
    if settings.api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if given != settings.api_key:
        raise ApiError(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")


def check_model(model: str, settings: FakeSettings) -> None:
    """Raise the 404 of an unknown model."""
    if settings.models and model not in settings.models:
        raise ApiError(
            404,
            f"The model `{model}` does not exist or you do not have access to it.",
            code="model_not_found",
        )


def check_fields(body: Mapping[str, Any], settings: FakeSettings) -> None:
    """Raise the refusal of a field that this server does not take, in the words of a real server."""
    for name in settings.refuses:
        if name == "image":
            if '"image_url"' in json.dumps(body["messages"]):
                raise ApiError(400, f"{body['model']} is not a multimodal model", type="BadRequestError")
        elif name in body and name == "max_tokens":
            raise ApiError(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                code="unsupported_parameter",
                param=name,
            )
        elif name in body and name in {"temperature", "top_p"}:
            raise ApiError(
                400,
                f"Unsupported value: '{name}' does not support {body[name]:g} with this model. "
                "Only the default (1) value is supported.",
                code="unsupported_value",
                param=name,
            )
        elif name in body:
            detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": _EXTRA, "input": body[name]}]
            raise ApiError(422, json.dumps({"detail": detail}), type="invalid_request_error")


def count_answer(state: State, key: str, value: Mapping[str, Any], status: int) -> None:
    """Count an answered request; `value` is the answer's body."""
    stats = state.stats
    stats.answers += 1
    stats.answered[key] += 1
    stats.last_answer = time.monotonic()
    stats.items += sum(_texts(choice["message"]["content"]) for choice in value.get("choices", ()))
    if state.log is not None:
        append_line(state.log, f"{key} {status}")


def _away(settings: FakeSettings, now: float) -> str | None:
    """The fault of every request while the server is starting or in an outage, or None."""
    if now < settings.slow_start_s:
        return "disconnect" if settings.slow_start == "disconnect" else "slow_start"
    return "outage" if any(start <= now < end for start, end in settings.outages) else None


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise ApiError(400, "We could not parse the JSON body of your request.") from None


def _most_tokens(body: Mapping[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)


def _admit(state: State, tokens: int) -> dict[str, str]:
    """The rate-limit headers of an admitted request; raises the 429 of a refused one."""
    settings = state.settings
    if settings.max_in_flight is not None and state.stats.in_flight > settings.max_in_flight:
        raise ApiError(429, "Too many requests at once.", code="too_many_concurrent_requests")
    if settings.quota_requests is not None and state.accepted >= settings.quota_requests:
        raise ApiError(
            429,
            "You exceeded your current quota, please check your plan and billing details.",
            code="insufficient_quota",
            type="insufficient_quota",
        )
    headers = take(state.budgets, tokens=tokens) if state.budgets else {}
    state.accepted += 1
    return headers


def _answer(
    state: State, body: Mapping[str, Any], key: str, prompt_tokens: int, headers: Mapping[str, str]
) -> web.Response:
    try:
        value = answer(body, key, state.settings, prompt_tokens=prompt_tokens)
    except ApiError as error:  # a lasting fault is the answer to this request every time
        count_answer(state, key, {}, error.status)
        state.stats.faults[error.code or str(error.status)] += 1
        return error_response(error)
    count_answer(state, key, value, 200)
    return web.Response(body=_json(value), content_type="application/json", headers=headers)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _texts(content: str | None) -> int:
    """Number of texts in an answer: the length of its longest array if it is structured, else one."""
    if content is None:
        return 0
    if not content.startswith("{"):
        return 1
    try:
        value = json.loads(content)
    except ValueError:
        return 0  # cut off
    arrays = [entry for entry in value.values() if isinstance(entry, list)]
    return max(map(len, arrays), default=1)
