"""When nobody sends: a Retry-After, or an endpoint that fails for everybody.

closed ── 20 failures in a row, and two per call that may be in flight ──> open: all pause
open ── 1 s, doubled each time, at most 60 s ──> half open: one call goes as a probe
half open ── answered ──> closed;  failed ──> open
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from data.errors import RunError

log = logging.getLogger(__name__)

_FAILURES = 20
_LONGEST_S = 60.0
_LONGEST_WISH_S = 366 * 86_400.0  # of a date that can be told


class Breaker:
    """The run's pauses, and the clock of its requests, which stands still while all are paused.

    Times are seconds of one clock that never goes back. `first_s` is the first pause of an outage, `failures`
    in a row begin one. `who`: one of several endpoints, which is set aside while the others go on.
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
        self._stopped_at: float | None = None  # when the requests' clock stopped
        self._stood_still = 0.0

    def clock(self, now: float) -> float:
        """The requests' time: `now` without all pauses."""
        self._go_on(now)
        return (now if self._stopped_at is None else self._stopped_at) - self._stood_still

    def wait(self, now: float) -> float:
        """Seconds until a call may be sent: 0.0 at once, infinity while a probe is under way."""
        if self._probing:
            return float("inf")
        return max(0.0, self._retry_at - now, self._probe_at - now if self._open else 0.0)

    def told_to_wait(self, now: float) -> float:
        """Seconds that a Retry-After has still to run, or 0.0."""
        return max(0.0, self._retry_at - now)

    def paused(self, now: float) -> str | None:
        """Why all are paused, or None."""
        self._go_on(now)
        return None if self._stopped_at is None else self._why

    def sent(self) -> bool:
        """A call is sent. Whether it is the probe of an outage."""
        self._probing = self._open
        return self._probing

    def unsent(self, *, probe: bool) -> None:
        """A call was begun, but nothing was sent: where it was the probe, another takes its place."""
        if probe:
            self._probing = False

    def answered(self, now: float) -> None:
        """The endpoint lives."""
        self._failures = 0
        self._silent_since = None
        self._pause_s = self._first_s
        if self._open:
            self._open = self._probing = False
            self._closed_at = now
            log.warning("%s answers again: going on", self._who or "the endpoint")

    def failed(self, now: float, why: str, *, most: int, probe: bool) -> None:
        """A call failed in a way that says nothing of its request.

        `most` calls may be in flight; `probe` is what `sent` said of this one. Raises `RunError` where the
        endpoint has answered nothing for `outage_s`.
        """
        self._failures += 1
        if self._silent_since is None:
            self._silent_since = now
        silent = now - self._silent_since
        if silent >= self._outage_s:
            raise RunError(
                f"no answer for {silent:.0f} s (`outage_s`), the last said: {why}; run again to go on: "
                "answered requests are kept"
            )
        if self._open:
            if probe:
                self._pause(now, why)
        elif self._failures >= max(self._most, 2 * most):
            self.trip(now, why)

    def trip(self, now: float, why: str) -> None:
        """Open, if it is not open."""
        if not self._open:
            self._open = True
            self._pause(now, why)
            if self._who is None:
                log.warning("nothing is answered: paused, with a try now and then (%s)", why)
            else:
                log.warning("%s is set aside, with a try now and then (%s)", self._who, why)

    def retry_after(self, now: float, seconds: float, why: str) -> None:
        """Nobody sends for so long. Raises `RunError` where that is longer than `outage_s`."""
        if seconds > self._outage_s:
            back = datetime.now(UTC) + timedelta(seconds=min(seconds, _LONGEST_WISH_S))
            raise RunError(
                f"{why}: asks to come back in {seconds:.0f} s, which is longer than `outage_s`; run again "
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
        self._go_on(now)
        self._why = why
        if self._stopped_at is None:
            self._stopped_at = now

    def _go_on(self, now: float) -> None:
        """Let the clock run again, from the moment when the last pause was over."""
        if self._stopped_at is not None and not self._open and now >= self._retry_at:
            over = max(self._stopped_at, self._retry_at, self._closed_at)
            self._stood_still += over - self._stopped_at
            self._stopped_at = None
