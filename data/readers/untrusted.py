"""Checks for untrusted files that every reader makes before and during decoding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import MissingDependencyError, SampleError

MEBIBYTE = 2**20
_ADDRESS = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>")


def check_file(path: Path, *, max_bytes: int) -> int:
    """The size in bytes of a regular file that is neither empty nor larger than `max_bytes`.

    Raises `SampleError` for anything else: a missing file, a folder, a device, a file without read
    permission.
    """
    if not path.exists():
        raise SampleError(f"{path}: no such file; correct its path in the manifest")
    if not path.is_file():
        raise SampleError(f"{path}: not a regular file; point the manifest at a file")
    if not os.access(path, os.R_OK):
        raise SampleError(f"{path}: no permission to read it; give read permission")
    size = path.stat().st_size
    if size == 0:
        raise SampleError(f"{path}: the file is empty; fetch it again")
    if size > max_bytes:
        raise SampleError(
            f"{path}: {size / MEBIBYTE:,.0f} MiB is more than the limit of "
            f"{max_bytes / MEBIBYTE:,.0f} MiB for such a file; shorten or reduce it"
        )
    return size


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn any exception of a decoder into one `SampleError` line.

    Given hostile bytes, decoders raise nearly every built-in exception (ValueError, KeyError, struct.error,
    MemoryError, RecursionError) and their own, and this changes from release to release. So every exception
    is caught; keep the block small, with nothing but library calls inside.
    """
    try:
        yield
    except (SampleError, MissingDependencyError):
        raise
    except Exception as error:
        message = getattr(error, "strerror", None) or str(error).replace(str(path), path.name)
        message = message.partition("; use `usecols`")[0]  # NumPy's advice to programmers
        message = _ADDRESS.sub("it", message)  # Pillow shows the object that it reads from
        reason = " ".join(message.split())[:160] or type(error).__name__
        raise SampleError(f"{path}: not a readable {what} ({reason}); export or fetch it again") from error
