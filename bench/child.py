"""A command in a process of its own: how long it took, what it used, what it said."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LAST_WORDS = 2_000  # characters of a failed command's output that are kept


@dataclass(frozen=True)
class Ended:
    """`cpu_s` is of the process and its children that ended; `peak_mb` of the process alone (MB, 10⁶)."""

    code: int
    said: str
    errors: str
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def last_line(self) -> str:
        """The last line it printed."""
        return self.said.strip().rpartition("\n")[2]

    @property
    def failure(self) -> str:
        """The end of what it said on stderr."""
        return f"exit status {self.code}: {self.errors.strip()[-_LAST_WORDS:]}"


def run(command: Sequence[str | Path], *, folder: Path, env: dict[str, str] | None = None) -> Ended:
    """Run a command to its end; its output goes to files in `folder`."""
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    start = time.perf_counter()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            list(map(str, command)), stdout=stdout, stderr=stderr, env=os.environ | (env or {})
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        code=process.returncode,
        said=out.read_text(encoding="utf-8", errors="replace"),
        errors=err.read_text(encoding="utf-8", errors="replace"),
        wall_s=time.perf_counter() - start,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss * 1024 / 1e6,  # Linux counts in KiB
    )
