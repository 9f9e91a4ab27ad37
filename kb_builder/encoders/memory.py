"""Whether a model fits into memory, asked before it is loaded: the kernel kills without a word."""

from __future__ import annotations

from pathlib import Path

from data.errors import InputError

_GIB = 2**30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Memory that this process may still take, in bytes; None where the system does not say (not Linux)."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    try:  # a container's own limit
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such file
        return free
    return min(free, max(0, limit - used))


def check_memory(name: str, needed: int) -> None:
    """Raise InputError where weights of `needed` bytes are more than what is free."""
    free = free_bytes()
    if free is not None and needed > free:
        raise InputError(
            f"{name}: its weights take {needed / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are free;"
            " end other programs, or name a smaller model"
        )
