"""Opens video and audio containers with PyAV; they cannot open other files or addresses."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av

from data.errors import SampleError
from data.readers.untrusted import MEBIBYTE, check_file, decoding

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
    _check_boxes(path)
    with decoding(path, what):
        container = av.open(file if file is not None else str(path.absolute()), options=OPTIONS)
    with container:
        yield container


def _check_boxes(path: Path) -> None:
    """Raise `SampleError` for an MP4 or QuickTime file that FFmpeg would read in part, by its boxes (ISO/IEC
    14496-12, 4.2).

    FFmpeg reads the first of several joined files; and in a file of fragments, which has no index of the
    whole, it takes a torn or damaged fragment for the end.
    """
    size, at, movies, fragments = path.stat().st_size, 0, 0, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if at == 0 and kind not in FIRST_BOXES:
                return
            movies += kind == b"moov"
            fragments += kind == b"moof"
            length = int.from_bytes(head[8:], "big") if length == 1 else length
            if length == 0 and kind.isascii() and kind.isalnum():  # to the end of the file
                at = size
            if length < 8:
                break
            at += length
        file.seek(min(at, size))
        rest = file.read(MEBIBYTE).strip(b"\0")
    if movies > 1:
        raise SampleError(
            f"{path}: several files are joined to one, of which only the first would be read; split it"
        )
    if fragments and (at > size or rest):
        raise SampleError(f"{path}: truncated or damaged within its last fragment; fetch it again")
