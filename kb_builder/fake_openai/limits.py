"""Rate limits of an account: token buckets of requests and tokens per minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.settings import FakeSettings

_MINUTE = 60.0


@dataclass
class RateBudget:
    """A token bucket of one minute's worth: full at first, and refilled evenly within a minute."""

    name: str  # requests | tokens
    per_minute: int
    clock: Callable[[], float] = time.monotonic
    left: float = field(init=False)
    filled: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = float(self.per_minute)
        self.filled = self.clock()

    def fill(self) -> None:
        """Add the refill since the last call."""
        now = self.clock()
        gained = (now - self.filled) * self.per_minute / _MINUTE
        self.left = min(float(self.per_minute), self.left + gained)
        self.filled = now

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is available; 0 if it is."""
        return max(0.0, (amount - self.left) * _MINUTE / self.per_minute)

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        return {
            f"x-ratelimit-limit-{self.name}": str(self.per_minute),
            f"x-ratelimit-remaining-{self.name}": str(max(0, int(self.left))),
            f"x-ratelimit-reset-{self.name}": duration(self.wait(self.per_minute)),
        }


def budgets(settings: FakeSettings) -> tuple[RateBudget, ...]:
    """The budgets in the settings, requests first."""
    wanted = (("requests", settings.rpm), ("tokens", settings.tpm))
    return tuple(RateBudget(name, per_minute) for name, per_minute in wanted if per_minute is not None)


def take(held: tuple[RateBudget, ...], *, tokens: int) -> dict[str, str]:
    """Take one request of `tokens` from every budget, or from none; returns the headers to send.

    Raises the 429 of the first budget that has too little, with the headers of all.
    """
    amounts = {"requests": 1.0, "tokens": float(tokens)}
    for budget in held:
        budget.fill()
    headers = {name: value for budget in held for name, value in budget.headers().items()}
    for budget in held:
        wait = budget.wait(amounts[budget.name])
        if wait > 0:
            raise ApiError(
                429,
                f"Rate limit reached on {budget.name} per min: Limit {budget.per_minute}, "
                f"Requested {amounts[budget.name]:g}. Please try again in {duration(wait)}.",
                code="rate_limit_exceeded",
                type=budget.name,
                headers=headers
                | {"retry-after": str(max(1, round(wait))), "retry-after-ms": f"{wait * 1e3:.0f}"},
            )
    for budget in held:
        budget.left -= amounts[budget.name]
    return {name: value for budget in held for name, value in budget.headers().items()}


def duration(seconds: float) -> str:
    """A duration in OpenAI's form: 17ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, _MINUTE)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.3g}s"
