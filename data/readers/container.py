"""Opening video and audio containers with PyAV, without letting them open anything else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av

from data.readers.untrusted import check_file, decoding

# FFmpeg also "opens" play lists and concat scripts, which name other files and addresses to fetch. Only real
# containers are allowed, whatever the file is called, and only from this file.
DEMUXERS = "mov,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,mp3,aac,ac3,eac3,flac,wav,w64,caf,aiff,amr"
OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}


@contextmanager
def open_container(
    path: Path, *, what: str, max_bytes: int, file: BinaryIO | io.RawIOBase | None = None
) -> Iterator[Any]:
    """An open `av` input container of one bounded file; `what` names it in error messages.

    `file` is read in place of the file at `path`, where only a stretch of it is wanted.
    """
    check_file(path, max_bytes=max_bytes)
    with decoding(path, what):
        container = av.open(file if file is not None else str(path.absolute()), options=OPTIONS)
    with container:
        yield container
