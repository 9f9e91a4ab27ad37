"""Files come from strangers: what every reader checks before and while a decoder sees one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import MissingDependencyError, SampleError

MEBIBYTE = 2**20


def check_file(path: Path, *, max_bytes: int) -> int:
    """The size in bytes of a regular file that is neither empty nor larger than `max_bytes`.

    Raises `SampleError` for anything else: a missing file, a folder, a device, a file we may not read.
    """
    if not path.exists():
        raise SampleError(f"{path}: no such file; mend its path in the manifest")
    if not path.is_file():
        raise SampleError(f"{path}: not a regular file; point the manifest at a file")
    if not os.access(path, os.R_OK):
        raise SampleError(f"{path}: may not be read; give read permission")
    size = path.stat().st_size
    if size == 0:
        raise SampleError(f"{path}: the file is empty; fetch it again")
    if size > max_bytes:
        raise SampleError(
            f"{path}: {size / MEBIBYTE:,.0f} MiB is more than the {max_bytes / MEBIBYTE:,.0f} MiB "
            "that one such file may have; shorten or reduce it"
        )
    return size


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder throws at hostile bytes into one `SampleError` line.

    Decoders of untrusted bytes raise nearly every built-in exception (ValueError, KeyError, struct.error,
    MemoryError, RecursionError, their own), differently in each release: so the net is wide, and callers keep
    the block small, with nothing but vendor calls inside.
    """
    try:
        yield
    except (SampleError, MissingDependencyError):
        raise
    except Exception as error:
        told = getattr(error, "strerror", None) or str(error).replace(str(path), path.name)
        told = told.partition("; use `usecols`")[0]  # NumPy's advice to who wrote the call
        reason = " ".join(told.split())[:160] or type(error).__name__
        raise SampleError(f"{path}: not a readable {what} ({reason}); export or fetch it again") from error
