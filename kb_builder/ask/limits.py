"""How many calls may be in flight: additive increase, multiplicative decrease.

The rule of Chiu and Jain ("Analysis of the increase and decrease algorithms for congestion avoidance", 1989)
with the factor 0.7 of CUBIC (RFC 9438), on calls instead of packets.
"""

from __future__ import annotations

from kb_builder.ask.request import Limits

_STEPS = 64
_ON_THROTTLE = 0.7
_ON_LATENCY = 0.9
_SLOWER = 2.0  # a window this much slower than the best one ...
_FASTER = 1.1  # ... that answers less than this much more per second shows a queue, not a gain
_FORGET = 1.1  # per window: what was best long ago says little of the server of now
_FEWEST = 16  # answers in a window
_MINUTE = 60.0


class Limiter:
    """Starts at its ceiling: most endpoints take what they are sent, and the others say so at once.

    A limit's worth of answers adds one, or 1/64 of the ceiling where that is more: the way back up takes as
    many round trips from 1,024 as from 64. A 429 multiplies by 0.7, at most once per round trip: 429s to
    calls that were sent before the last cut are the same news again. A window of answers whose mean latency
    is over twice the best window's, at no higher rate, multiplies by 0.9.
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
    """A token bucket. It may go below zero: a request larger than the bucket goes when the bucket is full."""

    def __init__(self, per_minute: int | None) -> None:
        self._told = per_minute is not None  # by the settings: headers change nothing then
        self._rate = (per_minute or 0) / _MINUTE
        self._size = max(
            1.0, self._rate
        )  # a second's worth: no minute has more than a second's worth too much
        self._level = self._size
        self._filled: float | None = None
        self.limited = self._told
        self._in_flight = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; 0.0 if it may now."""
        if not self.limited:
            return 0.0
        self._fill(now)
        lacks = min(amount, self._size) - self._level
        # A clock has no digits for less than this; waiting for it would be waiting for ever.
        return lacks / self._rate if lacks > 1e-6 * self._size else 0.0

    def take(self, amount: float) -> None:
        """Take it for a call that is sent now."""
        self._level -= amount
        self._in_flight += amount

    def settle(self, taken: float, used: float) -> None:
        """The call has come home: it used so much of what was taken."""
        self._in_flight -= taken
        self._level = min(self._size, self._level + taken - used)

    def learn(self, now: float, limit: int | None, left: int | None, reset_s: float | None) -> None:
        """Take over what a header says: so many are left, and all of them again in `reset_s` seconds.

        The server has not heard yet of some that are in flight: they are taken off what it says is left.
        """
        if self._told or not limit or left is None:
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
    """Both budgets. A request's tokens are reserved by an estimate, and corrected by what it used."""

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._requests = Bucket(requests_per_minute)
        self._tokens = Bucket(tokens_per_minute)

    @property
    def counts_tokens(self) -> bool:
        """Whether a request's tokens matter."""
        return self._tokens.limited

    def wait(self, now: float, tokens: float) -> float:
        """Seconds until a request of so many tokens may be sent; 0.0 if it may now."""
        return max(self._requests.wait(now, 1.0), self._tokens.wait(now, tokens))

    def take(self, tokens: float) -> None:
        """A request is sent."""
        self._requests.take(1.0)
        self._tokens.take(tokens)

    def settle(self, tokens: float, used: float | None) -> None:
        """It has come home. `used` is None where it does not say what it used: the estimate stands."""
        self._requests.settle(1.0, 1.0)
        self._tokens.settle(tokens, tokens if used is None else used)

    def learn(self, now: float, limits: Limits) -> None:
        """What an answer's headers say. Call it after `settle` of that answer."""
        self._requests.learn(now, limits.requests, limits.requests_left, limits.reset_requests_s)
        self._tokens.learn(now, limits.tokens, limits.tokens_left, limits.reset_tokens_s)
