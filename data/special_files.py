"""Special files (pipes, sockets, devices) and broken links in place of a regular file or a folder.

Opening a pipe blocks until a writer appears; reading a device may never end; libraries report either in
different ways, or hang. So code that opens files in folders that others can write to checks here first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

# Endings of a run's files: a folder with one of them is in the place of a file.
_FILES = (".json", ".parquet", ".safetensors", ".lock", ".html", ".sqlite", ".sqlite-wal", ".sqlite-shm")
# Names of a run's folders: a file with one of them is in the place of a folder.
_FOLDERS = {
    *("kb", "stages", "studies", "cells", "unused", "descriptions", "category", "sample", "embeddings"),
    *("rejects", "category_texts", "sample_texts", "controls", "samples"),
}


def special_kind(path: Path) -> str | None:
    """What a path is if it is special: "a pipe", "a device", "a link to nothing", …

    None for a regular file, a folder, a link to either, and a path that does not exist.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (of every file of a run)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
            raise
        return "a link to nothing" if path.is_symlink() else None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    return f"a link to {kind}" if path.is_symlink() else kind


def is_irregular(path: Path) -> bool:
    """Whether something other than a regular file (a folder, a pipe, a device) is at `path`; links
    followed."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  (of every file of a run)
    except OSError:
        return False


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading bytes. Raises OSError that names the path, also for a pipe or
    device."""
    # Without O_NONBLOCK opening a pipe would block until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file but a pipe, a socket or a device", str(path))
    return os.fdopen(descriptor, "rb")


def misplaced_entries(run: Path) -> Iterator[str]:
    """One line for each special file, and each file or folder in the other's place, in a run and its parent.

    Links to regular files and folders are followed: a run may be spread over several disks.
    """
    for place in (run.parent, run):
        if found := special_kind(place) or ("a file" if place.is_file() else None):
            yield _line(place, found, "a folder")
            return
    seen: set[tuple[int, int]] = set()
    waiting = [run]
    while waiting:
        folder = waiting.pop()
        try:
            about = folder.stat()
            listed = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:  # not created yet, or removed meanwhile
            continue
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for entry in listed:
            belongs = "a folder" if entry.name in _FOLDERS else "a file"
            path = Path(entry.path)
            if found := special_kind(path):
                yield _line(path, found, belongs)
            elif entry.is_dir():
                if entry.name.endswith(_FILES):
                    yield _line(path, "a folder", belongs)
                waiting.append(path)
            elif belongs == "a folder" and entry.is_file():
                yield _line(path, "a file", belongs)


def _line(path: Path, found: str, belongs: str) -> str:
    return f"{path} is {found}, where {belongs} belongs; move it away, then run again"
