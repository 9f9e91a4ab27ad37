"""Ogg files page by page: splits chained (concatenated) sounds, and finds missing or truncated pages.

Source: RFC 3533, "The Ogg Encapsulation Format". An Ogg file that ends between two pages is accepted: live
recordings end like that.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from data.errors import SampleError
from data.readers.stretch import Stretch

HEAD = struct.Struct("<4sBBqIIIB")  # capture, version, flags, granule, serial, number, sum, segments
FIRST_PAGE = 2  # flag: a stream begins


def ogg_parts(path: Path, begin: int, size: int) -> list[Stretch]:
    """The links of a chain, or the whole file. Raises `SampleError` for a truncated page or a gap."""
    starts: list[int] = []
    numbers: dict[int, int] = {}  # serial -> number of its last page
    opening = False  # among the first pages of a link
    at = begin
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(HEAD.size)
            if head[:4] != b"OggS"[: len(head)]:
                if _another(file, at):
                    raise SampleError(f"{path}: damaged, no Ogg page at byte {at:,}; fetch it again")
                break  # tags or padding behind the last page
            segments = file.read(head[-1]) if len(head) == HEAD.size else b""
            length = HEAD.size + len(segments) + sum(segments)
            if len(head) < HEAD.size or len(segments) < head[-1] or at + length > size:
                raise SampleError(f"{path}: truncated within its last page; fetch it again")
            _, _, flags, _, serial, number, _, _ = HEAD.unpack(head)
            if flags & FIRST_PAGE:
                if not opening:
                    starts.append(at)
                    numbers.clear()
                opening = True
            else:
                opening = False
                if serial in numbers and number != (numbers[serial] + 1) % 2**32:
                    raise SampleError(
                        f"{path}: damaged, page {numbers[serial] + 1:,} is followed by page {number:,}; "
                        "fetch it again"
                    )
            numbers[serial] = number
            at += length
    if len(starts) < 2:
        return [Stretch(path, 0, size)]
    return [Stretch(path, start, end) for start, end in zip(starts, [*starts[1:], at], strict=True)]


def _another(file: BinaryIO, at: int) -> bool:
    """Whether another page follows the bytes that are not one."""
    file.seek(at)
    return b"OggS" in file.read()
