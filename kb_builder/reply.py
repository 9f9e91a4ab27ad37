"""What comes back from one call: the answer's body, and what the endpoint says of its limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WHOLE = re.compile(r"[0-9]{1,15}")
_YEAR_S = 366 * 86_400.0
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Limits:
    """The `x-ratelimit-*` headers of one answer; None where the endpoint says nothing.

    `reset_*_s` are the seconds until the budget is full again.
    """

    requests: int | None = None
    requests_left: int | None = None
    reset_requests_s: float | None = None
    tokens: int | None = None
    tokens_left: int | None = None
    reset_tokens_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The body as JSON text with at least one choice, and the limits that came with it."""

    body: str
    limits: Limits | None = None


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """The limits of an answer's headers (OpenAI's names, which gateways copy), or None where it has none."""
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
    """A whole number that an account may have as its limit; what is none, or beyond sense, says nothing."""
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
