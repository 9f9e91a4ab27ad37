"""Pipes, devices and links that lead nowhere, where a plain file or a folder belongs.

Opening a pipe waits for a writer, for ever; reading a device may never end; a library that is given one says
so in words of its own, or not at all. So who opens files in folders that others can write to asks here first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

# What the files of a run end in: a folder of such a name stands where a file belongs.
_FILES = (".json", ".parquet", ".safetensors", ".lock", ".html", ".sqlite", ".sqlite-wal", ".sqlite-shm")
# The folders of a run, by their own names: a file of such a name stands where a folder belongs.
_FOLDERS = {
    *("kb", "stages", "studies", "cells", "unused", "descriptions", "category", "sample", "embeddings"),
    *("rejects", "category_texts", "sample_texts", "controls", "samples"),
}


def oddity(path: Path) -> str | None:
    """What is odd about a path: "a pipe", "a device", "a link to nothing", …

    None for a plain file, a folder, a link to either, and for a path where nothing is.
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


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file to read its bytes. Raises OSError that names it, for a pipe or a device too."""
    # Without O_NONBLOCK the opening itself would wait for a pipe's writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a plain file but a pipe, a socket or a device", str(path))
    return os.fdopen(descriptor, "rb")


def misplaced(run: Path) -> Iterator[str]:
    """What is in a run's folder, or on the way to it, and cannot be what it is named for: one line each.

    Links to plain files and to folders are followed: a run may lie on several disks.
    """
    for place in (run.parent, run):
        if found := oddity(place) or ("a file" if place.is_file() else None):
            yield _line(place, found, "a folder")
            return
    seen: set[tuple[int, int]] = set()
    waiting = [run]
    while waiting:
        folder = waiting.pop()
        try:
            about = folder.stat()
            listed = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:  # not made yet, or removed meanwhile
            continue
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for entry in listed:
            belongs = "a folder" if entry.name in _FOLDERS else "a file"
            path = Path(entry.path)
            if found := oddity(path):
                yield _line(path, found, belongs)
            elif entry.is_dir():
                if entry.name.endswith(_FILES):
                    yield _line(path, "a folder", belongs)
                waiting.append(path)
            elif belongs == "a folder" and entry.is_file():
                yield _line(path, "a file", belongs)


def _line(path: Path, found: str, belongs: str) -> str:
    return f"{path} is {found}, where {belongs} belongs; move it away, then run again"
