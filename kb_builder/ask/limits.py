"""Limits of calls in flight (additive increase, multiplicative decrease) and rate limits per minute.

The rule of Chiu and Jain ("Analysis of the increase and decrease algorithms for congestion avoidance", 1989)
with the factor 0.7 of CUBIC (RFC 9438), on calls instead of packets.
"""

from __future__ import annotations

from kb_builder.ask.request import Limits

_STEPS = 64
_ON_THROTTLE = 0.7
_ON_LATENCY = 0.9
_SLOWER = 2.0  # a window this much slower than the best one ...
_FASTER = 1.1  # ... with less than this gain in rate shows a queue, not a gain
_FORGET = 1.1  # per window: an old best says little about the server now
_FEWEST = 16  # answers in a window
_MINUTE = 60.0


class Limiter:
    """Limits the calls in flight. It starts at its ceiling: endpoints that take fewer calls say so at once.

    As many answers as the limit add one, or 1/64 of the ceiling where that is more, so recovery takes as many
    round trips with 1,024 calls as with 64. A 429 multiplies the limit by 0.7, at most once per round trip:
    429s to calls that were sent before the last cut report the same overload. A window of answers whose mean
    latency is over twice the best window's, at no higher rate, multiplies it by 0.9.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._limit = float(ceiling)
        self._step = max(1.0, ceiling / _STEPS)
        self._last_cut = float("-inf")
        self._window_start: float | None = None
        self._answers = 0
        self._latency = 0.0
        self._best_latency = float("inf")
        self._best_rate = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now: at least one."""
        return int(self._limit)

    def answered(self, now: float, *, sent: float) -> None:
        """A call that was sent at `sent` has been answered (seconds, any one clock)."""
        self._limit = min(self._ceiling, self._limit + self._step / self._limit)
        if self._window_start is None:  # the first answer begins the first window
            self._window_start = now
            return
        self._answers += 1
        self._latency += now - sent
        if self._answers >= max(_FEWEST, self._limit):
            self._judge(now)

    def throttled(self, now: float, *, sent: float) -> None:
        """A call that was sent at `sent` got a 429."""
        if sent >= self._last_cut:
            self._cut(now, _ON_THROTTLE)

    def _judge(self, now: float) -> None:
        latency = self._latency / self._answers
        rate = self._answers / max(now - (self._window_start or 0.0), 1e-9)
        if latency > _SLOWER * self._best_latency and rate < _FASTER * self._best_rate:
            self._cut(now, _ON_LATENCY)
        self._best_latency *= _FORGET
        if latency <= self._best_latency:
            self._best_latency, self._best_rate = latency, rate
        self._window_start = now
        self._answers, self._latency = 0, 0.0

    def _cut(self, now: float, factor: float) -> None:
        self._limit = max(1.0, self._limit * factor)
        self._last_cut = now


class Bucket:
    """A token bucket. A request larger than the bucket is sent when it is full, and leaves it below zero."""

    def __init__(self, per_minute: int | None) -> None:
        self._fixed = per_minute is not None  # by the settings: headers are ignored then
        self._rate = (per_minute or 0) / _MINUTE
        # One second's worth, so that no minute exceeds its limit by more than that.
        self._size = max(1.0, self._rate)
        self._level = self._size
        self._filled: float | None = None
        self.limited = self._fixed
        self._in_flight = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; 0.0 if it may now."""
        if not self.limited:
            return 0.0
        self._fill(now)
        lacks = min(amount, self._size) - self._level
        # Shorter waits are below the resolution of the clock, and would never end.
        return lacks / self._rate if lacks > 1e-6 * self._size else 0.0

    def take(self, amount: float) -> None:
        """Take `amount` for a call that is sent now."""
        self._level -= amount
        self._in_flight += amount

    def settle(self, taken: float, used: float) -> None:
        """A call has ended: give back what it took, and take what it used."""
        self._in_flight -= taken
        self._level = min(self._size, self._level + taken - used)

    def learn(self, now: float, limit: int | None, left: int | None, reset_s: float | None) -> None:
        """Adopt the numbers of a header: `left` of `limit`, and all of it again in `reset_s` seconds.

        The server has not counted the calls in flight yet: they are subtracted from what is left.
        """
        if self._fixed or not limit or left is None:
            return
        gone = limit - left
        self._rate = gone / reset_s if reset_s and gone > 0 else limit / _MINUTE
        self._size = float(limit)
        self._level = left - self._in_flight
        self._filled = now
        self.limited = True

    def _fill(self, now: float) -> None:
        if self._filled is not None:
            self._level = min(self._size, self._level + (now - self._filled) * self._rate)
        self._filled = now


class Rates:
    """Both rate limits. A request's tokens are reserved by an estimate, and corrected after its answer."""

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._requests = Bucket(requests_per_minute)
        self._tokens = Bucket(tokens_per_minute)

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited."""
        return self._tokens.limited

    def wait(self, now: float, tokens: float) -> float:
        """Seconds until a request of `tokens` may be sent; 0.0 if it may now."""
        return max(self._requests.wait(now, 1.0), self._tokens.wait(now, tokens))

    def take(self, tokens: float) -> None:
        """A request of `tokens` is sent."""
        self._requests.take(1.0)
        self._tokens.take(tokens)

    def settle(self, tokens: float, used: float | None) -> None:
        """It has ended. `used` is None where no usage is reported: the estimate counts."""
        self._requests.settle(1.0, 1.0)
        self._tokens.settle(tokens, tokens if used is None else used)

    def learn(self, now: float, limits: Limits) -> None:
        """Adopt the limits in an answer's headers. Call it after `settle` of that answer."""
        self._requests.learn(now, limits.requests, limits.requests_left, limits.reset_requests_s)
        self._tokens.learn(now, limits.tokens, limits.tokens_left, limits.reset_tokens_s)
