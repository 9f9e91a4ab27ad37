"""Checks whether a Matroska or WebM file is complete, by the size of its Segment.

Source: RFC 8794 (EBML: variable-size numbers, section 4; unknown sizes, section 6.2), RFC 9559 (Matroska).
"""

from __future__ import annotations

from pathlib import Path

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_whole_matroska(path: Path) -> bool | None:
    """Whether the Segment of a Matroska file is complete.

    None for other files, and where the size is unknown, as in live recordings.
    """
    end = _end_of_segment(path)
    return None if end is None else end <= path.stat().st_size


def is_joined_matroska(path: Path) -> bool:
    """Whether another Matroska file follows the Segment of this one."""
    end = _end_of_segment(path)
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(end)
        return file.read(4) == EBML


def _end_of_segment(path: Path) -> int | None:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] != EBML:
        return None
    header_size, at = _size(head, 4)
    if header_size is None:
        return None
    at += header_size
    if head[at : at + 4] != SEGMENT:
        return None
    segment_size, body = _size(head, at + 4)
    return None if segment_size is None else body + segment_size


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """(a size of one to eight bytes, or None if unknown or missing; the offset behind it)."""
    if at >= len(data) or data[at] == 0:
        return None, at
    width = 9 - data[at].bit_length()
    raw = int.from_bytes(data[at : at + width], "big")
    value = raw & (2 ** (7 * width) - 1)
    return (None if value == 2 ** (7 * width) - 1 else value), at + width
