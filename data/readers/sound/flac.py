"""FLAC files of unknown length (written to a pipe) or concatenated: measured by their last frame.

Source: RFC 9639, "Free Lossless Audio Codec", sections 8.2 (STREAMINFO) and 9.1 (frame header).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data.errors import SampleError
from data.readers.stretch import Stretch

# The start of a FLAC stream: its marker, and the header of a STREAMINFO block (34 bytes), always first.
BEGINNING = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
STREAMINFO_BYTES = 34
ID3V1_BYTES = 128
TAIL_BYTES = 2**22  # at the end of a file: larger than any frame
BLOCK_SIZES = {1: 192} | {n: 576 << (n - 2) for n in range(2, 6)} | {n: 256 << (n - 8) for n in range(8, 16)}


def flac_parts(path: Path, begin: int, size: int) -> list[Stretch]:
    """The concatenated FLAC streams of a file, each with its number of samples, taken from its last frame.

    Raises `SampleError` for one of unknown length whose last frame is incomplete.
    """
    starts = [begin, *_more_beginnings(path, begin)]
    with path.open("rb") as file:
        return [_one(file, path, start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


def _more_beginnings(path: Path, begin: int) -> list[int]:
    """The offsets of further FLAC streams."""
    found: list[int] = []
    step, overlap = 2**22, len(BEGINNING[0]) - 1
    with path.open("rb") as file:
        at = begin + 4
        while True:
            file.seek(at)
            block = file.read(step + overlap)
            for mark in BEGINNING:
                place = block.find(mark)
                while place >= 0:
                    found.append(at + place)
                    place = block.find(mark, place + 1)
            if len(block) <= overlap:
                return sorted(set(found))
            at += step


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame header. `number`: of its first sample, or of the frame where the block size is fixed."""

    by_sample: bool
    number: int
    samples: int


def _one(file: BinaryIO, path: Path, start: int, end: int) -> Stretch:
    file.seek(start + 8)
    info = file.read(STREAMINFO_BYTES)
    if len(info) < STREAMINFO_BYTES:
        raise SampleError(f"{path}: truncated within its header; fetch it again")
    declared = int.from_bytes(info[13:18], "big") & (2**36 - 1)
    tail_start = max(start + 8 + STREAMINFO_BYTES, end - TAIL_BYTES)
    file.seek(tail_start)
    tail = file.read(end - tail_start)
    last, end_in_tail = _last_frame(tail)
    if last is None:
        if declared:
            return Stretch(path, start, end)  # libsndfile compares the number of samples
        raise SampleError(
            f"{path}: does not state its length, and its last frame is incomplete; fetch it again"
        )
    block = int.from_bytes(info[2:4], "big")  # the largest block; with a fixed size all but the last
    first = _first_frame(file, start)
    before = (
        first.number if first is not None else 0
    )  # above 0 for a piece that was cut out of a longer sound
    there = (last.number - before) * (1 if last.by_sample else block) + last.samples
    if there < declared:
        raise SampleError(f"{path}: truncated, {there:,} of {declared:,} samples are there; fetch it again")
    if there == declared:
        return Stretch(path, start, end)
    patched = int.from_bytes(info[13:18], "big") & ~(2**36 - 1) | there
    return Stretch(path, start, tail_start + end_in_tail, {start + 8 + 13: patched.to_bytes(5, "big")})


def _first_frame(file: BinaryIO, start: int) -> _Frame | None:
    """The first frame, behind the metadata."""
    at, last = start + 4, False
    while not last:
        file.seek(at)
        head = file.read(4)
        if len(head) < 4:
            return None
        last = bool(head[0] & 0x80)
        at += 4 + int.from_bytes(head[1:], "big")
    file.seek(at)
    return _frame_at(file.read(16), 0)


def _last_frame(tail: bytes) -> tuple[_Frame | None, int]:
    """The last frame with valid checksums that ends where the sound ends; and that end."""
    ends = [len(tail)]
    if tail[-ID3V1_BYTES:][:3] == b"TAG":
        ends.insert(0, len(tail) - ID3V1_BYTES)
    if len(unpadded := tail.rstrip(b"\0")) < len(tail):
        ends += [len(unpadded), len(unpadded) + 1, len(unpadded) + 2]  # a checksum may end in zeros
    for end in ends:
        at = end
        while (at := max(tail.rfind(b"\xff\xf8", 0, at), tail.rfind(b"\xff\xf9", 0, at))) >= 0:
            frame = _frame_at(tail, at)
            if frame is not None:
                if _crc16(tail[at:end]) == 0:
                    return frame, end
                if end - at > 2**17:  # larger than a frame of eight channels
                    break
    return None, len(tail)


def _frame_at(data: bytes, at: int) -> _Frame | None:
    """The frame header at an offset, if its checksum is valid."""
    head = data[at : at + 16]
    if len(head) < 6 or head[3] & 1 or head[2] & 15 == 15 or head[2] >> 4 == 0:
        return None
    first = head[4]
    extra = 0
    while first & (0x80 >> extra):
        extra += 1
    if extra == 1 or extra > 7:
        return None
    follow = max(0, extra - 1)
    number = first & (0x7F >> extra)
    for byte in head[5 : 5 + follow]:
        number = number << 6 | byte & 0x3F
    place = 5 + follow
    code = head[2] >> 4
    if code in {6, 7}:
        width = code - 5
        samples = int.from_bytes(head[place : place + width], "big") + 1
        place += width
    else:
        samples = BLOCK_SIZES[code]
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if place >= len(head) or _crc8(head[: place + 1]) != 0:
        return None
    return _Frame(bool(head[1] & 1), number, samples)


def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) & 1 else 0)
        table.append(value & (2**bits - 1))
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value << 8 & 0xFF00) ^ _CRC16[value >> 8 ^ byte]
    return value
