"""Attack by setting the system's clock back and forth during a run, sometimes with a kill."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import partial

from bench.torture.ground import RUN, Ground, false_lines, sound_ledger
from bench.torture.trial import Trial

HOUR_S = 3600.0
_LEAPS = (-HOUR_S, HOUR_S, -400 * 24 * HOUR_S, 400 * 24 * HOUR_S, -1.0, 1.0)


def set_clock_at(leaps: tuple[tuple[float, float], ...]) -> None:
    """Set this process's clock during a run: `leaps` are seconds from now, and the change in seconds then.

    time.monotonic is not changed, as it is not where the system's clock is set.
    """
    began = time.monotonic()
    seconds, nanoseconds = time.time, time.time_ns

    def off() -> float:
        since = time.monotonic() - began
        return sum(by for at, by in leaps if at <= since)

    class Leaping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=off())

    time.time = lambda: seconds() + off()
    time.time_ns = lambda: nanoseconds() + int(off() * 1e9)
    for module in list(sys.modules.values()):
        if module.__name__ != __name__ and vars(module).get("datetime") is datetime:
            module.datetime = Leaping  # type: ignore[attr-defined]


def leaping_clocks(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Endless trials: nothing hangs, waits for the clock or is asked twice, and results are the same."""
    while True:
        folder = ground.copy(ground.fresh, "clock")
        ground.server.reset()
        leaps = tuple((rng.uniform(0, ground.seconds), rng.choice(_LEAPS)) for _ in range(rng.randint(1, 3)))
        killed = rng.random() < 0.3
        running = ground.start(folder, "run", before=partial(set_clock_at, leaps))
        if killed:
            time.sleep(rng.uniform(0.1, ground.seconds))
            running.kill()
        done = running.wait()
        problem = None if done.status == -9 else done.problem() or done.error or None
        problem = (
            problem or sound_ledger(folder / RUN) or false_lines(folder / RUN) or ground.ends_well(folder)
        )
        again = [key for key, times in ground.server.answered().items() if times > 1 + killed]
        if again:
            problem = problem or f"{len(again)} requests were asked more than once"
        changes = ", ".join(f"{by:+,.0f} s after {at:.1f} s" for at, by in sorted(leaps))
        yield Trial(f"clock set by {changes}{', killed' if killed else ''}", problem)
