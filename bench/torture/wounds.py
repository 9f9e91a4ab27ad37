"""Damage files at rest, as a disk or a careless user might: each kind of file of a run, in several places.

A bit is flipped in place, so that size, modification time and inode stay. Or the file is truncated, emptied,
deleted, replaced by a folder or a pipe, or exchanged for another valid file or an older version.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Lock files are empty; SQLite removes its own files beside the ledger when it is closed.
_NOTHING = re.compile(r"(run|ledger)\.lock|.*-(wal|shm)|\..*")
_NUMBERS = re.compile(r"\d+|[0-9a-f]{8,}")


@dataclass(frozen=True)
class Wound:
    """A damage: `flip 0.50`, `cut`, `empty`, `gone`, `folder`, `pipe` or `swap NAME`."""

    name: str
    place: float = 0.0  # of a flip: its position, from 0 (the first byte) to 1 (the last)
    other: Path | None = None  # of a swap

    def inflict(self, path: Path) -> None:
        """Apply it to a file, keeping its times if it stays a file."""
        before = path.stat()
        if self.name == "gone":
            path.unlink()
        elif self.name in {"folder", "pipe"}:
            path.unlink()
            path.mkdir() if self.name == "folder" else os.mkfifo(path)
        elif self.other is not None:
            mine, theirs = path.read_bytes(), self.other.read_bytes()
            _overwrite(path, theirs, before)
            _overwrite(self.other, mine, self.other.stat())
        elif self.name == "cut":
            _overwrite(path, path.read_bytes()[: before.st_size // 2], before)
        elif self.name == "empty":
            _overwrite(path, b"", before)
        else:
            flip(path, int(self.place * (before.st_size - 1)))


def flip(path: Path, place: int, bit: int = 2) -> None:
    """Flip one bit of a file in place, keeping its size, inode and modification time."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def wounds(path: Path, *, places: int = 5) -> Iterator[Wound]:
    """The damages of a file that need no other file: flips at evenly spaced positions, and the rest."""
    if path.stat().st_size:
        for number in range(places):
            yield Wound(f"flip {number}", number / max(1, places - 1))
        yield Wound("cut")
        yield Wound("empty")
    for name in ("gone", "folder", "pipe"):
        yield Wound(name)


def kinds(run: Path) -> dict[str, Path]:
    """The first file of every kind in a finished run, by its name without numbers and hashes."""
    found: dict[str, Path] = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and not _NOTHING.fullmatch(path.name):
            found.setdefault(_NUMBERS.sub("N", path.relative_to(run).as_posix()), path)
    return found


def restore(run: Path, whole: Path) -> None:
    """Restore a run from its copy `whole`."""
    shutil.rmtree(run)
    shutil.copytree(whole, run, symlinks=True)


def _overwrite(path: Path, content: bytes, times: os.stat_result) -> None:
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
