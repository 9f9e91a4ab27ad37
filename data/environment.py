"""The environment of this process: the cores that it may use, and variables for processes that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from data.errors import InputError

CORES = "UNIBIND_CORES"  # a worker's share of its machine; processes that it starts inherit it
# For a process that is started: one thread for each product, and glibc keeps the memory of a picture, which
# it else returns to the system at once and gets again page by page.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
KEEP_MEMORY = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(64 * 2**20))


def cores() -> int:
    """The number of cores that this process may use: those it is bound to, or fewer by `UNIBIND_CORES`.

    Raises InputError where that variable is no number of cores.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(CORES)
    if share is None:
        return bound
    if not (share.isascii() and share.isdigit() and int(share)):
        raise InputError(f"{CORES}={share!r} is not a number of cores; set it to 1 or more, or unset it")
    return min(bound, int(share))


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block; afterwards the previous values, or none, are restored."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
