"""One writer at a time: a lock that its holder's death frees."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import KnowledgeBaseError


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, or raise `KnowledgeBaseError` at once with the holder's process and host.

    The kernel keeps the lock (flock) and drops it when the holder ends, by `kill -9` too; the file's content
    only names the holder. The file is never removed: removing it would let two processes lock two files of
    one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KnowledgeBaseError(
                f"{path.parent} is being written by {_holder(descriptor)}; wait until it ends or stop it, "
                f"then run again ({path.name} frees itself)"
            ) from None
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # the holder has locked it and not yet signed it
        return "another process"
