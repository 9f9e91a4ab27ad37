"""Settings of the fake server: its speed, faults and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from data.errors import InputError

# A passing fault is drawn again each time a request arrives: a retry has another draw.
PASSING: Mapping[str, str] = {
    "throttle": "429 that does not say how long to wait",
    "throttle_seconds": "429 with Retry-After in seconds",
    "throttle_ms": "429 with retry-after-ms",
    "throttle_date": "429 with Retry-After as an HTTP date",
    "408": "408 request timeout",
    "500": "500 internal error",
    "502": "502 from a gateway, in HTML",
    "503": "503 overloaded",
    "529": "529 overloaded, as some vendors send it",
    "hang": "no answer until the client disconnects",
    "disconnect": "the connection is cut before the headers",
    "disconnect_body": "the connection is cut in the middle of the body",
    "wrong_length": "a Content-Length that is shorter than the body",
    "torn_json": "status 200, half of the JSON",
    "empty_body": "status 200, nothing",
    "html": "status 200, a page in HTML",
    "error_body": "status 200, an error as its body",
    "no_choices": "status 200, no choices",
    "no_message": "status 200, a choice without a message",
}

# A hostile fault is drawn like a passing one, but only if it is named in the settings.
HOSTILE: Mapping[str, str] = {
    "drip": "status 200, a byte of the body every tenth of a second",
    "endless_headers": "headers that do not end",
    "endless_events": "status 200, server-sent events that do not end",
    "endless_gzip": "status 200, a small packed body that unpacks without end",
    "huge_body": "status 200, a body of 32 MB",
    "deep_json": "status 200, JSON that is nested 200,000 deep",
    "bad_bytes": "status 200, a byte of the answer is not UTF-8",
    "odd_charset": "status 200, a charset that is not one of text",
    "odd_encoding": "status 200, a Content-Encoding that was not requested",
    "redirect_away": "307 to another address, with the same request",
    "throttle_inf": "429 with Retry-After: inf",
    "throttle_nan": "429 with Retry-After: nan",
    "throttle_negative": "429 with a negative Retry-After",
    "throttle_years": "429 with a Retry-After of thousands of years",
    "odd_limits": "429 with senseless x-ratelimit headers",
}

# A lasting fault belongs to the request: the same request always has it.
LASTING: Mapping[str, str] = {
    "refusal": "the text declines",
    "refusal_field": "no text; the message's `refusal` declines",
    "content_filter": "the text ends early, finish_reason content_filter",
    "length": "the text ends early, finish_reason length",
    "torn_content": "structured answers end early though finish_reason is stop",
    "policy": "400 content policy violation",
}


@dataclass(frozen=True)
class FakeSettings:
    """How the fake behaves. `faults` maps names of `PASSING`, `HOSTILE` and `LASTING` to probabilities.

    Shares and rates lie in 0..1, times are in seconds, clocks start with the server (and at a reset).
    """

    seed: int = 0
    models: tuple[str, ...] = ()  # known models; empty: any
    refuses: tuple[str, ...] = ()  # refused fields of a body; `image`: pictures
    api_key: str | None = field(default=None, repr=False)  # the only valid key; None: any
    latency_s: float = 0.0
    jitter_s: float = 0.0  # additional latency at most, drawn by request
    faults: Mapping[str, float] = field(default_factory=dict)
    duplicate_rate: float = 0.0  # share of texts that repeat another about their subject, half of them nearly
    retry_after_s: float = 1.0  # Retry-After of a 429
    hang_s: float | None = None  # a hang ends in a cut connection after so long; None: never
    rpm: int | None = None  # requests per minute; 429 beyond, x-ratelimit headers on every answer
    tpm: int | None = None  # tokens per minute
    max_in_flight: int | None = None  # 429 beyond
    quota_requests: int | None = None  # after this number of accepted requests: 429 insufficient_quota
    slow_start_s: float = 0.0
    slow_start: Literal["503", "disconnect"] = "503"  # the fault of requests before that
    outages: tuple[tuple[float, float], ...] = ()  # from second .. to second: everything is 503
    batch_s: float = 1.0  # from a batch's creation to its end
    batch_expired: float = 0.0  # share of items that expire; drawn each time an item is sent
    batch_failed: float = 0.0  # share of items that end with status 500, drawn likewise
    batch_rejects: int = 0  # this number of batches, the first ones, fail as a whole (enqueued token limit)
    batch_max_requests: int = 50_000
    batch_max_bytes: int = 200_000_000

    def __post_init__(self) -> None:
        known = [*PASSING, *HOSTILE, *LASTING]
        unknown = [name for name in self.faults if name not in known]
        if unknown:
            raise InputError(f"unknown fault {', '.join(map(repr, unknown))}; known are: {', '.join(known)}")
        for kind in ({**PASSING, **HOSTILE}, LASTING):
            _check_share(sum(self.faults.get(name, 0.0) for name in kind), f"{', '.join(kind)} together")
        for name, share in self.faults.items():
            _check_share(share, f"fault {name}")
        for name in ("duplicate_rate", "batch_expired", "batch_failed"):
            _check_share(getattr(self, name), name)
        _check_share(self.batch_expired + self.batch_failed, "batch_expired and batch_failed together")
        for name in ("latency_s", "jitter_s", "retry_after_s", "slow_start_s", "batch_s"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, not {getattr(self, name)}")
        for start, end in self.outages:
            if not 0 <= start < end:
                raise InputError(f"an outage lasts from one second to a later one, not {start:g}:{end:g}")


def _check_share(share: float, what: str) -> None:
    if not 0.0 <= share <= 1.0 + 1e-9:
        raise InputError(f"{what} must have a probability between 0 and 1, not {share:g}")


def all_faults(total: float, names: Iterable[str] = PASSING) -> dict[str, float]:
    """A total probability, spread evenly over every passing fault (or over the names given)."""
    chosen = list(names)
    return {name: total / len(chosen) for name in chosen}


def share_of(kind: Iterable[str], settings: FakeSettings) -> dict[str, float]:
    """The probabilities of one kind of fault; empty where no fault is scripted at all."""
    return {name: settings.faults.get(name, 0.0) for name in kind} if settings.faults else {}
