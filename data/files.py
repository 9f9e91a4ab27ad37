"""Files that are whole or absent: atomic writes, and the hashes that identify content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.special_files import open_regular

Stamp = tuple[int, int]  # inode, and nanoseconds of the last change
Signature = tuple[int, int, int, int]  # bytes, ns of change, ns of the inode's change, inode

SETTLED_NS = 2_000_000_000  # the coarsest file system clock in use (FAT) has ticks of two seconds

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it becomes `target`, on failure it is removed.

    The file is synced before the rename and the folder after it, so a power cut leaves the old file or the
    new one, never a partial one. A full disk raises an OSError that names `target`, whichever library writes.
    The file's mode follows the umask, even if a library creates private files, as safetensors does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "a folder, where a file is to be written; delete it", str(target)
        )
    temporary = _temporary(target)
    try:
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(stat.S_IMODE(mode))
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:
        if error.filename in {None, str(temporary), temporary}:
            error.filename = str(target)
        raise
    except Exception as error:  # libraries in Rust, such as safetensors, raise their own error types
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_new(target: Path, content: bytes) -> bool:
    """Write a file unless there is one; False where there is.

    Of several writers, on any machines, one succeeds: a link fails where there is a file, on any file system
    that has links.
    """
    whole = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    with atomic_path(whole) as temporary:
        temporary.write_bytes(content)
    try:
        os.link(whole, target)
    except FileExistsError:
        return False
    finally:
        whole.unlink()
    _sync(target.parent)
    return True


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `target` when the block ends without an error.

    Raises InputError if there is anything at `target` but an empty folder.
    """
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} already exists; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:40]}.") as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        for path in folder.rglob("*"):
            _sync(path)
        folder.replace(target)
        _sync(target.parent)


def _temporary(target: Path) -> Path:
    """A new empty file beside `target`, with a name that no other process on any machine uses."""
    name = f".{target.name[:40]}.{socket.gethostname()[:32]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    temporary = target.with_name(name)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError as error:
        error.filename = str(target)
        raise
    return temporary


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp(file: Path) -> Stamp | None:
    """Inode and time of change: they differ once another file replaces this one. None for a missing file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def watched(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether `folder` is still the same folder; always true if it was missing.

    The folder is kept open meanwhile, so that no new folder can reuse its inode.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield lambda: True
        return

    def same() -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), folder.stat())
        except FileNotFoundError:
            return False

    try:
        yield same
    finally:
        os.close(descriptor)


def signature(path: Path) -> Signature | None:
    """Size, times and inode of a file, links followed: any change of the file changes it. None if missing."""
    try:
        found = os.stat(path)  # noqa: PTH116  (of a million files)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def settled(path: Path, before: Signature | None) -> Signature | None:
    """`before`, the signature taken before a file was read, if it identifies what was read; else None.

    It does if it is still the same and older than `SETTLED_NS`: within one tick of the file system's clock a
    file can change twice and keep all its times.
    """
    if before is None or signature(path) != before:
        return None
    return before if time.time_ns() - max(before[1], before[2]) > SETTLED_NS else None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Dataclasses become objects."""
    return _CANONICAL.encode(value)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file (indented, sorted keys) whole or not at all."""
    write_text(target, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=_plain) + "\n")
