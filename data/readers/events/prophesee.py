"""Reads Prophesee's event files: `.dat` (CD events), and `.raw` in the encodings EVT 2.0 and EVT 3.0.

Not supported: EVT 2.1 and EVT 4 (refused); triggers and other non-event words (skipped).

Shape legend: N events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from data.errors import SampleError
from data.readers.events.columns import MAX_EVENTS, checked_events, too_many
from data.readers.events.evt import Columns, decode_evt2, decode_evt3
from data.readers.payload import AnyArray, Events, Integers
from data.readers.untrusted import MEBIBYTE, check_file

MAX_BYTES = 256 * MEBIBYTE
MAX_HEADER_LINES, MAX_LINE_BYTES = 100, 4096
CHUNK_WORDS = 2**20  # decoded at once: bounds memory
CD_TYPES = (0x00, 0x0C)  # of a `.dat`: contrast events, in its first and in its later numbering
DAT_EVENT = np.dtype([("t", "<u4"), ("word", "<u4")])
# Where the header does not give the sensor size: the smallest of Prophesee's sensors that holds all events.
SENSORS = ((304, 240), (320, 320), (640, 480), (1280, 720))


def read_dat(path: Path) -> Events:
    """Read a `.dat` file of contrast events: a 32-bit time in microseconds, then a word of x, y and polarity.

    From version 2 on 14 bits of x, 14 of y and one of polarity; before, 9, 8 and 1. Raises `SampleError` for
    other kinds of events, truncated files and pixels outside the sensor.
    """
    size = check_file(path, max_bytes=MAX_BYTES)
    with path.open("rb") as file:
        head = _header(file, path)
        kind = file.read(2)
        if len(kind) < 2 or kind[0] not in CD_TYPES or kind[1] != DAT_EVENT.itemsize:
            raise SampleError(f"{path}: contains no contrast events of 8 bytes; export its CD events")
        left = size - file.tell()
        if left % DAT_EVENT.itemsize:
            raise SampleError(f"{path}: ends within an event; fetch it again")
        if left // DAT_EVENT.itemsize > MAX_EVENTS:
            raise too_many(path, left // DAT_EVENT.itemsize)
        events_N = np.frombuffer(file.read(left), DAT_EVENT)
    x_bits, y_bits, p_bit = (9, 8, 17) if head.get("version") in {"0", "1"} else (14, 14, 28)
    word_N = events_N["word"].astype(np.int64)
    x_N, y_N = word_N & (2**x_bits - 1), word_N >> x_bits & (2**y_bits - 1)
    t_N = events_N["t"].astype(np.int64)
    t_N[1:] += np.cumsum(np.diff(t_N) < -(2**31)) << 32  # overflow of the 32-bit clock
    return checked_events(path, x_N, y_N, t_N, word_N >> p_bit & 1, sensor=_sensor(path, head, x_N, y_N))


def read_raw(path: Path) -> Events:
    """Read a `.raw` file in EVT 2.0 or EVT 3.0, according to its header.

    Raises `SampleError` for other encodings, truncated files and pixels outside the sensor.
    """
    size = check_file(path, max_bytes=MAX_BYTES)
    with path.open("rb") as file:
        head = _header(file, path)
        named = head.get("format", "").partition(";")[0] or "EVT" + head.get("evt", "?").removesuffix(".0")
        if named not in ENCODINGS:
            raise SampleError(
                f"{path}: its header names the encoding {named[:20]!r}; EVT2, EVT3 and .dat files are read"
            )
        word, decode = np.dtype(ENCODINGS[named][0]), ENCODINGS[named][1]
        if (size - file.tell()) % word.itemsize:
            raise SampleError(f"{path}: ends within a word; fetch it again")
        parts: list[Columns] = []
        total = 0
        for columns in decode(_chunks(file, word)):
            parts.append(columns)
            total += len(columns[0])
            if total > MAX_EVENTS:
                raise too_many(path, total)
    x_N, y_N, t_N, p_N = (
        (np.concatenate(column) for column in zip(*parts, strict=True))
        if parts
        else [np.zeros(0, np.int64)] * 4
    )
    return checked_events(path, x_N, y_N, t_N, p_N, sensor=_sensor(path, head, x_N, y_N))


Decoder: TypeAlias = Callable[[Iterable[AnyArray]], Iterator[Columns]]
ENCODINGS: dict[str, tuple[str, Decoder]] = {"EVT2": ("<u4", decode_evt2), "EVT3": ("<u2", decode_evt3)}


def _chunks(file: BinaryIO, word: np.dtype[Any]) -> Iterator[AnyArray]:
    while chunk := file.read(CHUNK_WORDS * word.itemsize):
        yield np.frombuffer(chunk, word)


def _header(file: BinaryIO, path: Path) -> dict[str, str]:
    """The fields of the lines that begin with `%`, keys in lower case; leaves the file behind the header."""
    head: dict[str, str] = {}
    for _ in range(MAX_HEADER_LINES):
        start = file.tell()
        line = file.readline(MAX_LINE_BYTES)
        if not line.startswith(b"%"):
            file.seek(start)
            break
        key, _, value = line[1:].decode("ascii", errors="replace").strip().partition(" ")
        head[key.lower()] = value.strip()
        if key == "end":
            break
    if not head:
        raise SampleError(
            f"{path}: no header lines with '%', so it is not a Prophesee recording; use another file"
        )
    return head


def _sensor(path: Path, head: dict[str, str], x_N: Integers, y_N: Integers) -> tuple[int, int]:
    """(width, height) of the sensor, from one of three header fields; else guessed from the events."""
    said = {"width": head.get("width"), "height": head.get("height")}
    said |= dict(re.findall(r"(width|height)=(\d+)", head.get("format", "")))
    if size := re.fullmatch(r"(\d+)x(\d+)", head.get("geometry", "")):
        said = {"width": size[1], "height": size[2]}
    width, height = said["width"], said["height"]
    if width and height:
        if not re.fullmatch(r"[1-9]\d{0,3} [1-9]\d{0,3}", f"{width} {height}"):
            raise SampleError(
                f"{path}: its header gives a sensor size of {width[:9]} × {height[:9]}; correct the header"
            )
        return int(width), int(height)
    if not len(x_N):
        return SENSORS[0]
    fits = (size for size in SENSORS if x_N.max() < size[0] and y_N.max() < size[1])
    return next(fits, SENSORS[-1])
