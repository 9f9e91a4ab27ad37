"""The directories of a TIFF or BigTIFF: which tags they have, and where. Source: TIFF 6.0, sections 2, 8."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_ENTRIES = 2**16
MAX_DIRECTORIES = 64  # one picture with its thumbnails and masks
WHOLE_TYPES = {1: "B", 3: "H", 4: "I"}  # byte, short, long

_KIND, _OLD_KIND = (
    254,
    255,
)  # NewSubfileType: bit 0 a reduced copy, bit 2 a mask; SubfileType: 2 a reduced copy
_THUMBNAIL = 513  # where Exif keeps a thumbnail (JPEGInterchangeFormat)


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
    """The entries in file order. `at`: offset of the directory in bytes; `number`: its place in the chain,
    from 0; forms are `struct` formats."""

    entries: tuple[TiffEntry, ...]
    at: int
    number: int
    count_form: str
    offset_form: str

    def value(self, tag: int) -> int | None:
        """The first value of a tag if it is an integer, else None."""
        return next((entry.value for entry in self.entries if entry.tag == tag), None)


def directories(file: BinaryIO) -> Iterator[Directory]:
    """The directories in the order of their chain; it ends at one that is damaged or beyond the end.

    Endless where the chain leads back to itself. None where the file is not a TIFF.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] not in MAGICS:
        return
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    named_at, number = 8 if big else 4, 0
    while (found := _directory(file, named_at, number, order, big=big)) is not None:
        yield found
        entry_bytes = 20 if big else 12
        named_at = found.at + struct.calcsize(found.count_form) + len(found.entries) * entry_bytes
        number += 1


def first_directory(file: BinaryIO) -> Directory | None:
    """The first directory; None where the file is not a TIFF, or its directory lies beyond the end."""
    return next(directories(file), None)


def whole_pictures(file: BinaryIO) -> list[Directory]:
    """The directories of pictures: no reduced copy, no mask and no thumbnail as Exif keeps it.

    A file with a single directory holds one picture, whatever that is called. At most `MAX_DIRECTORIES` are
    looked at.
    """
    found = list(islice(directories(file), MAX_DIRECTORIES))
    return found if len(found) == 1 else [each for each in found if not _is_beside(each)]


def _is_beside(directory: Directory) -> bool:
    kind = directory.value(_KIND) or 0
    is_thumbnail = directory.number > 0 and directory.value(_THUMBNAIL) is not None
    return bool(kind & 0b101) or directory.value(_OLD_KIND) == 2 or is_thumbnail


def _directory(file: BinaryIO, named_at: int, number: int, order: str, *, big: bool) -> Directory | None:
    count_form, entry_bytes, offset_form = (
        (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    )
    try:
        file.seek(named_at)
        (at,) = struct.unpack(offset_form, file.read(struct.calcsize(offset_form)))
        if at == 0:  # the end of the chain
            return None
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
    return Directory(tuple(entries), at, number, count_form, offset_form)


def _entry(raw: bytes, order: str, offset_form: str) -> TiffEntry:
    tag, kind = struct.unpack_from(order + "HH", raw)
    (count,) = struct.unpack_from(offset_form, raw, 4)
    room = struct.calcsize(offset_form)
    value = None
    form = WHOLE_TYPES.get(kind)
    if form is not None and 0 < count * struct.calcsize(form) <= room:
        (value,) = struct.unpack_from(order + form, raw, 4 + room)
    return TiffEntry(tag, kind, count, raw, value)
