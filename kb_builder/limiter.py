"""How many calls may be in flight: additive increase, multiplicative decrease.

The rule of Chiu and Jain ("Analysis of the increase and decrease algorithms for congestion avoidance", 1989)
with the factor 0.7 of CUBIC (RFC 9438), on calls instead of packets.
"""

from __future__ import annotations

_STEPS = 64
_ON_THROTTLE = 0.7
_ON_LATENCY = 0.9
_SLOWER = 2.0  # a window this much slower than the best one ...
_FASTER = 1.1  # ... that answers less than this much more per second shows a queue, not a gain
_FORGET = 1.1  # per window: what was best long ago says little of the server of now
_FEWEST = 16  # answers in a window


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
