"""Requests and tokens per minute: what the settings say, else what the endpoint's headers say."""

from __future__ import annotations

from kb_builder.reply import Limits

_MINUTE = 60.0


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
