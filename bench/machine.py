"""Describe the machine that measures, and how busy it is with other work."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_SAMPLE_S = 1.0


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system; no name of this machine."""
    model = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(line for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def others_share() -> float:
    """The share of all cores that other processes use now; 0 on an idle machine."""
    before = _busy()
    mine = time.process_time()
    time.sleep(_SAMPLE_S)
    after = _busy()
    ticks = max(1, after[1] - before[1])
    own = (time.process_time() - mine) / (_SAMPLE_S * (os.cpu_count() or 1))
    return max(0.0, (after[0] - before[0]) / ticks - own)


def wait_for_quiet(share: float, *, at_most_s: float) -> float:
    """Wait until others use less than `share` of the cores, or the time is up; returns their share then."""
    until = time.monotonic() + at_most_s
    while (used := others_share()) > share and time.monotonic() < until:
        time.sleep(_SAMPLE_S)
    return used


def _busy() -> tuple[int, int]:
    """(busy ticks, all ticks) of all cores since boot."""
    numbers = list(map(int, _lines("/proc/stat")[0].split()[1:9]))
    idle = numbers[3] + numbers[4]
    return sum(numbers) - idle, sum(numbers)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
