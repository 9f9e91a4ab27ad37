"""Write lock: one writer per folder at a time; the kernel frees the lock when its holder ends.

Processes that each write files of their own, and complete nothing, share the lock: they exclude a writer, and
a writer excludes them.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.errors import KnowledgeBaseError


@contextmanager
def write_lock(path: Path, doing: str | None = None) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path`, or raise `KnowledgeBaseError` at once with the holder's process and host.

    `doing` says what the holder does, for those who look (`lock_holder`).

    The kernel keeps the lock (flock) and drops it when the holder ends, even by `kill -9`; the file's content
    only names the holder. The lock file is never removed here: two processes could then lock two different
    files of the same name. If another program removes it (or the whole folder), that can still happen, so
    yields a check that raises `KnowledgeBaseError` in that case. Call it before marking anything as complete;
    it also runs when the block ends.
    """
    about = {} if doing is None else {"doing": doing}
    with _held(path, fcntl.LOCK_EX, **about) as (descriptor, check):
        yield check
        check()
        os.ftruncate(descriptor, 0)


@contextmanager
def shared_lock(path: Path, what: str) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path` together with others of this kind, and against `write_lock`.

    `what` names this kind of process to a writer that is refused. Otherwise as `write_lock`.
    """
    with _held(path, fcntl.LOCK_SH, what=what) as (_, check):
        yield check
        check()  # the name stays: it may be that of another holder


@contextmanager
def _held(path: Path, kind: int, **about: str) -> Iterator[tuple[int, Callable[[], None]]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path, kind)

    def check() -> None:
        if not _is_open_at(descriptor, path):
            raise KnowledgeBaseError(
                f"{path.parent} was removed or replaced while it was written; nothing of this run is marked "
                "as done: run the same command again"
            )

    try:
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **about})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        except OSError as error:  # a full disk
            error.filename = str(path)
            raise
        yield descriptor, check
    finally:
        os.close(descriptor)


def _locked(path: Path, kind: int) -> int:
    """A locked descriptor of the file at `path`. Raises KnowledgeBaseError where another process holds it."""
    while True:
        # Opened without waiting, in case it is a pipe or a device.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise KnowledgeBaseError(f"{path} is not a regular file; move it away, then run again")
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
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
        process = f"process {holder['pid']} on {holder['host']}"
        return f"{holder['what']}, such as {process}" if "what" in holder else process
    except (ValueError, KeyError, TypeError):  # the holder has locked it, but not yet written its name
        return "another process"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and what it does, if it says so."""

    pid: int
    host: str
    doing: str | None
    since: float  # seconds since 1970


def lock_holder(path: Path) -> Holder | None:
    """The holder of a lock, read without locking; None where the lock is free.

    The name that a killed process of this host left behind does not count, nor do those of sharers, which
    stay when they end.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")[:1000])
        if "what" in content:
            return None
        holder = Holder(int(content["pid"]), str(content["host"]), content.get("doing"), path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if holder.host == socket.gethostname():
        try:
            os.kill(holder.pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
    return holder
