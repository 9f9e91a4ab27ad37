"""Circuit breaker: pauses every request after a Retry-After, or while the endpoint fails for all of them.

closed ── 20 failures in a row, and at least two per call in flight ──> open: all requests pause
open ── 1 s, doubled each time, at most 60 s ──> half open: one call is sent as a probe
half open ── answered ──> closed;  failed ──> open
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from data.errors import RunError

log = logging.getLogger(__name__)

_FAILURES = 20
_LONGEST_S = 60.0
_LONGEST_SHOWN_S = 366 * 86_400.0  # of a Retry-After that is shown as a date


class Breaker:
    """The pauses of a run, and the clock of its requests, which stops while all of them are paused.

    Times are seconds of a monotonic clock. `failures` in a row begin an outage, whose first pause is
    `first_s`. `who` names one endpoint of a pool, which is set aside while the others are used.
    """

    def __init__(
        self, *, outage_s: float, first_s: float = 1.0, failures: int = _FAILURES, who: str | None = None
    ) -> None:
        self._outage_s = outage_s
        self._most = failures
        self._who = who
        self._first_s = first_s
        self._pause_s = first_s
        self._failures = 0
        self._silent_since: float | None = None
        self._open = False
        self._probing = False
        self._probe_at = float("-inf")
        self._closed_at = float("-inf")
        self._retry_at = float("-inf")
        self._why = ""
        self._stopped_at: float | None = None  # when the clock stopped
        self._stood_still = 0.0

    def clock(self, now: float) -> float:
        """The time of the requests' clock: `now` without all pauses."""
        self._resume(now)
        return (now if self._stopped_at is None else self._stopped_at) - self._stood_still

    def wait(self, now: float) -> float:
        """Seconds until a call may be sent: 0.0 for now, infinity while a probe is in flight."""
        if self._probing:
            return float("inf")
        return max(0.0, self._retry_at - now, self._probe_at - now if self._open else 0.0)

    def retry_after_left(self, now: float) -> float:
        """Seconds until the last Retry-After is over, or 0.0."""
        return max(0.0, self._retry_at - now)

    def paused(self, now: float) -> str | None:
        """The reason why all requests are paused, or None."""
        self._resume(now)
        return None if self._stopped_at is None else self._why

    def sent(self) -> bool:
        """A call is sent; returns whether it is the probe of an outage."""
        self._probing = self._open
        return self._probing

    def unsent(self, *, probe: bool) -> None:
        """A call ended before anything was sent. If it was the probe, the next call is."""
        if probe:
            self._probing = False

    def answered(self, now: float) -> None:
        """The endpoint answered: any outage is over."""
        self._failures = 0
        self._silent_since = None
        self._pause_s = self._first_s
        if self._open:
            self._open = self._probing = False
            self._closed_at = now
            log.warning("%s answers again: continuing", self._who or "the endpoint")

    def failed(self, now: float, why: str, *, most: int, probe: bool) -> None:
        """A call failed for a reason that is not its request's.

        `most` calls may be in flight; `probe` is what `sent` returned for this one. Raises `RunError` if the
        endpoint has answered nothing for `outage_s`.
        """
        self._failures += 1
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if silent >= self._outage_s:
            raise RunError(
                f"no answer for {silent:.0f} s (`outage_s`), the last said: {why}; run again to continue: "
                "answered requests are kept"
            )
        if self._open:
            if probe:
                self._pause(now, why)
        elif self._failures >= max(self._most, 2 * most):
            self.trip(now, why)

    def trip(self, now: float, why: str) -> None:
        """Open the breaker, unless it is open."""
        if not self._open:
            self._open = True
            self._pause(now, why)
            if self._who is None:
                log.warning("nothing is answered: paused, with a probe now and then (%s)", why)
            else:
                log.warning("%s is set aside, with a probe now and then (%s)", self._who, why)

    def retry_after(self, now: float, seconds: float, why: str) -> None:
        """Pause all requests for `seconds`. Raises `RunError` where that is longer than `outage_s`."""
        if seconds > self._outage_s:
            back = datetime.now(UTC) + timedelta(seconds=min(seconds, _LONGEST_SHOWN_S))
            raise RunError(
                f"{why}: asks to retry after {seconds:.0f} s, which is longer than `outage_s`; run again "
                f"after {back:%Y-%m-%d %H:%M} UTC: answered requests are kept"
            )
        if now + seconds > max(now, self._retry_at):
            self._stop(now, why)
            self._retry_at = now + seconds

    def _pause(self, now: float, why: str) -> None:
        self._stop(now, why)
        self._probing = False
        self._probe_at = now + self._pause_s
        self._pause_s = min(_LONGEST_S, 2.0 * self._pause_s)

    def _stop(self, now: float, why: str) -> None:
        self._resume(now)
        self._why = why
        if self._stopped_at is None:
            self._stopped_at = now

    def _resume(self, now: float) -> None:
        """Start the clock again, from the moment when the last pause was over."""
        if self._stopped_at is not None and not self._open and now >= self._retry_at:
            over = max(self._stopped_at, self._retry_at, self._closed_at)
            self._stood_still += over - self._stopped_at
            self._stopped_at = None
