"""The first directory of a TIFF or BigTIFF: which tags it has, and where. Source: TIFF 6.0, section 2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_ENTRIES = 2**16
WHOLE_TYPES = {1: "B", 3: "H", 4: "I"}  # byte, short, long


@dataclass(frozen=True, slots=True)
class TiffEntry:
    """One tag: its type, its number of values, and its raw bytes in the directory."""

    tag: int
    kind: int
    count: int
    raw: bytes
    value: int | None  # the first value, if it is an integer stored in the entry itself


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries in file order. `at`: offset of the directory in bytes; forms are `struct` formats."""

    entries: tuple[TiffEntry, ...]
    at: int
    count_form: str
    offset_form: str

    def value(self, tag: int) -> int | None:
        """The first value of a tag if it is an integer, else None."""
        return next((entry.value for entry in self.entries if entry.tag == tag), None)


def first_directory(file: BinaryIO) -> Directory | None:
    """The first directory; None where the file is not a TIFF, or its directory lies beyond the end."""
    file.seek(0)
    head = file.read(16)
    if head[:4] not in MAGICS:
        return None
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    count_form, entry_bytes, offset_form = (
        (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    )
    try:
        (at,) = struct.unpack_from(offset_form, head, 8 if big else 4)
        file.seek(at)
        (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
    except (struct.error, OverflowError, OSError):
        return None
    if count > MAX_ENTRIES:
        return None
    raw = file.read(count * entry_bytes)
    if len(raw) < count * entry_bytes:
        return None
    entries = (_entry(raw[i : i + entry_bytes], order, offset_form) for i in range(0, len(raw), entry_bytes))
    return Directory(tuple(entries), at, count_form, offset_form)


def _entry(raw: bytes, order: str, offset_form: str) -> TiffEntry:
    tag, kind = struct.unpack_from(order + "HH", raw)
    (count,) = struct.unpack_from(offset_form, raw, 4)
    room = struct.calcsize(offset_form)
    value = None
    form = WHOLE_TYPES.get(kind)
    if form is not None and 0 < count * struct.calcsize(form) <= room:
        (value,) = struct.unpack_from(order + form, raw, 4 + room)
    return TiffEntry(tag, kind, count, raw, value)
