"""Run a command in a separate process, and measure its time, its memory and its output."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_KEPT = 2_000  # characters of a failed command's output that are kept


@dataclass(frozen=True)
class Ended:
    """How a command ended. `cpu_s` includes ended children; `peak_mb` (MB, 10⁶) is the process alone."""

    code: int
    output: str
    errors: str
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def last_line(self) -> str:
        """The last line on stdout."""
        return self.output.strip().rpartition("\n")[2]

    @property
    def failure(self) -> str:
        """The exit status and the end of stderr."""
        return f"exit status {self.code}: {self.errors.strip()[-_KEPT:]}"


def run(command: Sequence[str | Path], *, env: dict[str, str] | None = None) -> Ended:
    """Run a command to its end; `env` is added to this process's environment."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(map(str, command)), stdout=out, stderr=errors, env=os.environ | (env or {})
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - start
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(
        code=process.returncode,
        output=texts[0],
        errors=texts[1],
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss * 1024 / 1e6,  # Linux counts in KiB
    )
