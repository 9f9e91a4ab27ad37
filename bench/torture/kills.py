"""Attack by SIGKILL at random moments of a run, once or several times, before it is run to its end."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from bench.torture.ground import RUN, Ground, false_lines, sound_ledger
from bench.torture.trial import Trial

# Requests that a kill may repeat: those in flight, and one group of uncommitted answers.
_ALLOWANCE = 1


def kills(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Endless trials: tables, vectors, heads, numbers and ledger equal those of the undisturbed run."""
    while True:
        folder = ground.copy(ground.fresh, "killed")
        ground.server.reset()
        waits = [rng.uniform(0.1, ground.seconds) for _ in range(rng.choice((1, 1, 2, 3)))]
        killed, problem = 0, None
        for wait in waits:
            running = ground.start(folder, "run")
            time.sleep(wait)
            running.kill()
            done = running.wait(1)
            killed += done.status == -9
            problem = problem or (done.problem() if done.status != -9 else None)
            problem = problem or sound_ledger(folder / RUN) or false_lines(folder / RUN)
        what = f"killed after {', '.join(f'{wait:.1f} s' for wait in waits)}"
        problem = problem or ground.ends_well(folder)
        asked = ground.server.answered()
        if over := [key for key, times in asked.items() if times > 1 + killed * _ALLOWANCE]:
            problem = problem or f"{len(over)} requests were asked more often than the kills explain"
        yield Trial(what, problem)
