"""One writer at a time: a lock that its holder's death frees."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import KnowledgeBaseError


@contextmanager
def write_lock(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path`, or raise `KnowledgeBaseError` at once with the holder's process and host.

    The kernel keeps the lock (flock) and drops it when the holder ends, by `kill -9` too; the file's content
    only names the holder. The file is never removed: removing it would let two processes lock two files of
    one name. Where somebody else removed it, folder and all, two could; so what is yielded raises
    `KnowledgeBaseError` then: to be called before something is said to be complete, and called at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path)

    def check() -> None:
        if not _is_open_at(descriptor, path):
            raise KnowledgeBaseError(
                f"{path.parent} was removed or replaced while it was written; nothing of this is marked as "
                "done: run the same command again"
            )

    try:
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        except OSError as error:  # a full disk
            error.filename = str(path)
            raise
        yield check
        check()
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file at `path`, locked. Raises KnowledgeBaseError where another process has it."""
    while True:
        # Opened without waiting, in case it is a pipe or a device.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise KnowledgeBaseError(f"{path} is no plain file; move it away, then run again")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise KnowledgeBaseError(
                f"{path.parent} is being written by {holder}; wait until it ends or stop it, "
                f"then run again ({path.name} frees itself)"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed between opening and locking


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # the holder has locked it and not yet signed it
        return "another process"
