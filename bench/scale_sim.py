"""Replay the times of parts on 1 to 512 workers, with stragglers and losses: where does it bend?

    python -m bench.scale_sim [--hours 1000] [--seconds 5 30 120] [--from bench/results/scale.json]

A simulation of `pipeline/engines/ray.py`, not a measurement of machines. Each part takes a time drawn from
the measured ones (of `make bench-scale`; without them from a narrow spread), scaled to `--seconds`. The
driver writes one order after the other; a worker that is free takes the next. Some parts are stragglers. A
worker is lost now and then: its part is made again, and the worker comes back after a while. Planning before
and committing after are serial.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "scale.json"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MEASURED = "seconds of single parts"


@dataclass(frozen=True)
class Costs:
    """What is not the work itself, in seconds unless it says otherwise."""

    start_s: float = 15.0  # from the start of a worker to its first part
    driver_s: float = 0.004  # of the driver for each part, one after the other
    plan_s: float = 60.0  # before the first order
    commit_s: float = 10.0  # after the last part
    straggling: float = 0.01  # share of the parts
    slower: float = 3.0  # times as long takes a straggler
    losses_per_hour: float = 0.01  # of one worker
    back_s: float = 120.0  # until a lost worker is replaced


@dataclass(frozen=True)
class Replayed:
    """One run: its seconds, the share of them in which workers made parts that counted, parts made again."""

    wall_s: float
    efficiency: float
    again: int


def replay(seconds: Sequence[float], workers: int, costs: Costs, *, seed: int = 0) -> Replayed:
    """Make parts that take these seconds each, on that many workers.

    `efficiency` is the work of all parts without stragglers and losses, divided by workers × time.
    """
    draw = random.Random(seed)
    rate = costs.losses_per_hour / 3600
    waiting = deque(each * (costs.slower if draw.random() < costs.straggling else 1.0) for each in seconds)
    free = [(costs.plan_s + costs.start_s, number) for number in range(workers)]
    heapq.heapify(free)
    ordered = costs.plan_s  # when the driver has written its last order
    last, again = costs.plan_s, 0
    while waiting:
        at, number = heapq.heappop(free)
        ordered += costs.driver_s
        start, takes = max(at, ordered), waiting.popleft()
        lives = draw.expovariate(rate) if rate else float("inf")
        if lives < takes:
            waiting.appendleft(takes)
            again += 1
            heapq.heappush(free, (start + lives + costs.back_s, number))
            continue
        last = max(last, start + takes)
        heapq.heappush(free, (start + takes, number))
    wall_s = last + costs.commit_s
    return Replayed(wall_s, sum(seconds) / (workers * wall_s), again)


def bend(found: Sequence[tuple[int, Replayed]], least: float = 0.9) -> int | None:
    """The fewest workers whose efficiency is below `least`; None where no number of workers is."""
    return next((workers for workers, each in found if each.efficiency < least), None)


def measured(path: Path) -> list[float]:
    """The seconds of single parts in a results file; empty where it has none."""
    if not path.is_file():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return next((row["runs"] for row in rows if row["name"] == _MEASURED), [])


def parts(count: int, mean_s: float, shape: Sequence[float], *, seed: int = 0) -> list[float]:
    """Seconds of `count` parts with this mean, spread as the measured ones are."""
    draw = random.Random(seed)
    if not shape:
        return [mean_s * draw.lognormvariate(-0.005, 0.1) for _ in range(count)]
    middle = sum(shape) / len(shape)
    return [mean_s * draw.choice(shape) / middle for _ in range(count)]


def main() -> None:
    """Replay, and print a table for each size of a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=1000.0, help="of work, for one worker")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 30.0, 120.0], help="of a part")
    parser.add_argument("--from", dest="source", type=Path, default=RESULTS)
    given = parser.parse_args()
    shape = measured(given.source)
    known = f"{len(shape)} measured parts" if shape else "a spread of 10%, as no part was measured here"
    print(f"simulated; times of parts as in {known}; {Costs()}\n")
    for mean_s in given.seconds:
        seconds = parts(max(1, round(given.hours * 3600 / mean_s)), mean_s, shape)
        print(f"{len(seconds):,} parts of {mean_s:g} s")
        print(f"{'workers':>9} {'hours':>9} {'efficiency':>11} {'made again':>11}")
        found = [(workers, replay(seconds, workers, Costs())) for workers in WORKERS]
        for workers, each in found:
            print(f"{workers:9} {each.wall_s / 3600:9.2f} {each.efficiency:11.2f} {each.again:11}")
        at = bend(found)
        print(f"  efficiency falls below 0.90 at {at} workers\n" if at else "  stays above 0.90\n")


if __name__ == "__main__":
    main()
