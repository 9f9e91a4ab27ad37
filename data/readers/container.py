"""Opens video and audio containers with PyAV; they cannot open other files or addresses."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av

from data.errors import SampleError
from data.readers.untrusted import check_file, decoding

# FFmpeg also "opens" playlists and concat scripts, which name other files and addresses to fetch. Only real
# containers are allowed, regardless of the file's name, and only the file itself.
DEMUXERS = "mov,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mp3,aac,ac3,eac3,flac,wav,w64,caf,aiff,amr"
# The kinds of the first box of an MP4 or QuickTime file.
FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}


@contextmanager
def open_container(
    path: Path, *, what: str, max_bytes: int, file: BinaryIO | io.RawIOBase | None = None
) -> Iterator[Any]:
    """An open `av` input container of one bounded file; `what` names it in error messages.

    `file` is read instead of the file at `path`, where only a part of it is wanted.
    """
    check_file(path, max_bytes=max_bytes)
    if _counts_movies(path) > 1:
        raise SampleError(
            f"{path}: several files are joined to one, of which only the first would be read; split it"
        )
    with decoding(path, what):
        container = av.open(file if file is not None else str(path.absolute()), options=OPTIONS)
    with container:
        yield container


def _counts_movies(path: Path) -> int:
    """How many `moov` boxes an MP4 or QuickTime file has (ISO/IEC 14496-12, 4.2): FFmpeg reads the first one.

    0 for files of any other kind.
    """
    size, at, movies = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if at == 0 and kind not in FIRST_BOXES:
                return 0
            movies += kind == b"moov"
            length = int.from_bytes(head[8:], "big") if length == 1 else length
            if length < 8:  # 0: to the end of the file
                break
            at += length
    return movies
