"""Reads AEDAT 4, the event files of iniVation's cameras: one stream of events, compressed or not.

A file consists of a magic line, a header, packets, and a table that is not needed here. Header and packets
are FlatBuffers; packets may be compressed by LZ4 or Zstandard, and are decompressed up to a limit. Source:
"AEDAT file formats" in iniVation's documentation, and the schemas `ioheader.fbs` and `events.fbs`.

Shape legend: N events.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

from data.errors import SampleError
from data.readers.events.columns import MAX_EVENTS, checked_events, too_many
from data.readers.payload import AnyArray, Events
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 2048 * MEBIBYTE  # including frames and inertial readings between the events, which are skipped
MAX_HEADER_BYTES = MEBIBYTE
MAGIC = b"#!AER-DAT4.0\r\n"
# What the header's `compression` means: none, LZ4, LZ4 (thorough), Zstandard, Zstandard (thorough)
PACKINGS = (None, "lz4", "lz4", "zstd", "zstd")
EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "on"],
        "formats": ["<i8", "<i2", "<i2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)
ROOM_BYTES = 4096  # of a packet besides its events


def read_aedat(path: Path) -> Events:
    """Read the only event stream of an AEDAT 4 file; other streams are skipped.

    Raises `SampleError` for none or several event streams, truncated or damaged files, and pixels outside the
    sensor.
    """
    size = check_file(path, max_bytes=MAX_BYTES)
    parts: list[AnyArray] = []
    left = MAX_EVENTS
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SampleError(f"{path}: not an AEDAT 4 file; export it again in that version")
        with decoding(path, "AEDAT 4 file"):
            packing, end, about = _header(file)
            number, sensor = _event_stream(about, path)
        for packet in _packets(file, number, end if end > 0 else size, path):
            with decoding(path, "AEDAT 4 file"):
                events = _events(_unpack(packet, packing, at_most=left * EVENT.itemsize + ROOM_BYTES))
            left -= len(events)
            if left < 0:
                raise too_many(path, MAX_EVENTS - left)
            parts.append(events)
    events_N = np.concatenate(parts) if parts else np.zeros(0, EVENT)
    return checked_events(path, events_N["x"], events_N["y"], events_N["t"], events_N["on"], sensor=sensor)


def _header(file: BinaryIO) -> tuple[str | None, int, str]:
    """(compression of the packets, the offset where they end or a number below 1, the XML of the streams)."""
    (size,) = struct.unpack("<I", file.read(4))
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes")
    header = file.read(size)
    (root,) = struct.unpack_from("<I", header)
    packing, end, about = (_field(header, root, index) for index in range(3))
    if about is None:
        raise ValueError("a header without streams")
    (text,) = struct.unpack_from("<I", header, about)
    (length,) = struct.unpack_from("<I", header, about + text)
    return (
        PACKINGS[0 if packing is None else struct.unpack_from("<I", header, packing)[0]],
        -1 if end is None else struct.unpack_from("<q", header, end)[0],
        header[about + text + 4 : about + text + 4 + length].decode("utf-8"),
    )


def _event_stream(about: str, path: Path) -> tuple[int, tuple[int, int]]:
    """(number, (width, height) of its sensor) of the only stream of events."""
    if "<!" in about:
        raise ValueError("a header with a document type")  # whose entities could expand without bound
    streams = ElementTree.fromstring(about).findall("node[@name='outInfo']/node")
    events = [stream for stream in streams if _said(stream, "typeIdentifier") == "EVTS"]
    if len(events) != 1:
        raise SampleError(f"{path}: contains {len(events)} streams of events; export only the one you need")
    info = events[0].find("node[@name='info']")
    if info is None:
        raise ValueError("a stream of events without a sensor")
    return int(events[0].get("name", "")), (int(_said(info, "sizeX") or 0), int(_said(info, "sizeY") or 0))


def _said(node: ElementTree.Element, key: str) -> str | None:
    return node.findtext(f"attr[@key='{key}']")


def _packets(file: BinaryIO, number: int, end: int, path: Path) -> Iterator[bytes]:
    """The packets of stream `number` before offset `end`."""
    while (at := file.tell()) < end:
        head = file.read(8)
        stream, size = struct.unpack("<iI", head) if len(head) == 8 else (number, end)
        if at + 8 + size > end:
            raise SampleError(f"{path}: truncated, it ends within a packet of events; fetch it again")
        if stream != number:
            file.seek(size, io.SEEK_CUR)
            continue
        packet = file.read(size)
        if len(packet) < size:
            raise SampleError(f"{path}: truncated, it ends within a packet of events; fetch it again")
        yield packet


def _unpack(packet: bytes, packing: str | None, *, at_most: int) -> bytes:
    """The bytes of a packet, decompressed up to `at_most`; a longer packet then fails the length check."""
    if packing is None:
        return packet
    with pa.CompressedInputStream(pa.py_buffer(packet), packing) as stream:
        unpacked: bytes = stream.read(at_most)
    return unpacked


def _events(packet: bytes) -> AnyArray:
    """The events of a size-prefixed FlatBuffer whose only field is the vector of events."""
    (root,) = struct.unpack_from("<I", packet, 4)
    elements = _field(packet, 4 + root, 0)
    if elements is None:
        return np.zeros(0, EVENT)
    (vector,) = struct.unpack_from("<I", packet, elements)
    (count,) = struct.unpack_from("<I", packet, elements + vector)
    return np.frombuffer(packet, EVENT, count=count, offset=elements + vector + 4)


def _field(buffer: bytes, table: int, index: int) -> int | None:
    """The offset of a field of a FlatBuffers table, or None where it is absent and has its default."""
    (back,) = struct.unpack_from("<i", buffer, table)
    (vtable_bytes,) = struct.unpack_from("<H", buffer, table - back)
    if 4 + 2 * index >= vtable_bytes:
        return None
    (offset,) = struct.unpack_from("<H", buffer, table - back + 4 + 2 * index)
    return table + int(offset) if offset else None
