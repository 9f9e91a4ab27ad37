"""Measure how far the memory of this process rises during a block of code (Linux)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass
class Rise:
    """`mb`: the peak of resident memory minus that at the start; `peak_mb`: the peak itself."""

    mb: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def memory_rise() -> Iterator[Rise]:
    """Within: the kernel records the peak. After: the `Rise` has its values."""
    gc.collect()
    (_SELF / "clear_refs").write_text("5")  # reset the peak
    before, rise = _megabytes("VmRSS"), Rise()
    yield rise
    rise.peak_mb = _megabytes("VmHWM")
    rise.mb = rise.peak_mb - before


def _megabytes(field: str) -> float:
    lines = (_SELF / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6
