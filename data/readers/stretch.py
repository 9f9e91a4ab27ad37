"""A byte range of a file as a separate binary file, with some bytes of its header replaced."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes `start` to `end` of a file. `patches`: by offset, bytes to read instead of the file's.

    Offsets count from the beginning of the file, not of the stretch.
    """

    path: Path
    start: int
    end: int
    patches: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole file, unpatched."""
        return self.start == 0 and not self.patches and self.end == self.path.stat().st_size

    def open(self) -> StretchFile:
        """The stretch as a binary file; the caller closes it."""
        return StretchFile(self)


class StretchFile(io.RawIOBase):
    """The result of `Stretch.open`: readable and seekable, as libsndfile and FFmpeg require."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._file = stretch.path.open("rb", buffering=0)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self)}[whence]
        if base + offset < 0:
            raise OSError("an offset before the beginning of the file")
        self._at = base + offset
        return self._at

    def __len__(self) -> int:
        return self._stretch.end - self._stretch.start

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), len(self) - self._at))
        place = self._stretch.start + self._at
        self._file.seek(place)
        got = self._file.readinto(view[:wanted]) or 0
        for at, patch in self._stretch.patches.items():
            first, last = max(at, place), min(at + len(patch), place + got)
            if first < last:
                view[first - place : last - place] = patch[first - at : last - at]
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()
