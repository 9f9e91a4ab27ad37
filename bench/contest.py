"""Contenders that do the same work, measured in turns, so that changes of the machine's speed affect all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.machine import wait_for_quiet
from bench.rows import median

QUIET, WAIT_S = 0.10, 60.0


class Contest:
    """What each contender took, in seconds, in the order of its turns."""

    def __init__(self, contenders: Mapping[str, Callable[[], Any]], *, rounds: int) -> None:
        """Run every contender once unmeasured, then `rounds` times in turns, starting each with another.

        If a contender returns a number, that is its time in seconds.
        """
        names = list(contenders)
        for run in contenders.values():
            run()
        wait_for_quiet(QUIET, at_most_s=WAIT_S)
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                gc.collect()
                start = time.perf_counter()
                returned = contenders[name]()
                wall = time.perf_counter() - start
                self.seconds[name].append(returned if isinstance(returned, float) else wall)

    def median(self, name: str) -> float:
        """The median of a contender's turns."""
        found = median(self.seconds[name])
        assert found is not None
        return found

    def ratio(self, name: str, against: str) -> float:
        """How many times as fast `name` is as `against`: the median over the rounds of their ratios."""
        pairs = zip(self.seconds[against], self.seconds[name], strict=True)
        found = median([other / own for other, own in pairs])
        assert found is not None
        return found
