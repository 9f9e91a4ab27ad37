"""Opens video and audio containers with PyAV; they cannot open other files or addresses."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av

from data.readers.untrusted import check_file, decoding

# FFmpeg also "opens" playlists and concat scripts, which name other files and addresses to fetch. Only real
# containers are allowed, regardless of the file's name, and only the file itself.
DEMUXERS = "mov,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mp3,aac,ac3,eac3,flac,wav,w64,caf,aiff,amr"
OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}


@contextmanager
def open_container(
    path: Path, *, what: str, max_bytes: int, file: BinaryIO | io.RawIOBase | None = None
) -> Iterator[Any]:
    """An open `av` input container of one bounded file; `what` names it in error messages.

    `file` is read instead of the file at `path`, where only a part of it is wanted.
    """
    check_file(path, max_bytes=max_bytes)
    with decoding(path, what):
        container = av.open(file if file is not None else str(path.absolute()), options=OPTIONS)
    with container:
        yield container
