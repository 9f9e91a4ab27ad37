"""Prophesee's files against decoders that go word by word, as the format's documentation describes them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.events import prophesee
from data.readers.payload import Events

EVT3 = b"% camera_integrator_name Prophesee\n% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n"
EVT2 = b"% date 2022-01-01 00:00:00\n% evt 2.0\n% geometry 640x480\n"

Row = tuple[int, int, int, bool]  # x, y, t, polarity


def seen(path: Path) -> Events:
    payload = read("event", path)
    assert isinstance(payload, Events)
    return payload


def rows_of(events: Events) -> list[Row]:
    columns = (events.x_N, events.y_N, events.t_us_N, events.polarity_N)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def slow_evt3(words: list[int]) -> list[Row]:
    """EVT 3.0, one word after the other; the clock as OpenEB's decoder keeps it."""
    rows: list[Row] = []
    y = base = polarity = low = loops = 0
    high: int | None = None
    for word in words:
        kind, payload = word >> 12, word & 0xFFF
        if kind == 0x0:
            y = payload & 0x7FF
        elif kind == 0x6:
            low = payload
        elif kind == 0x8:
            if high is not None and high >= 2048 + payload:
                loops += 1
            if high != payload:
                low = 0
            high = payload
        elif kind == 0x3:
            base, polarity = payload & 0x7FF, payload >> 11
        elif kind in (0x2, 0x4, 0x5):
            t = ((loops << 12 | (high or 0)) << 12) + low
            if kind == 0x2:
                found = [(payload & 0x7FF, bool(payload >> 11))]
            else:
                width = 12 if kind == 0x4 else 8
                found = [(base + bit, bool(polarity)) for bit in range(width) if payload >> bit & 1]
                base += width
            if high is not None:
                rows += [(x, y, t, p) for x, p in found]
    return rows


def slow_evt2(words: list[int]) -> list[Row]:
    """EVT 2.0, one word after the other."""
    rows: list[Row] = []
    high: int | None = None
    loops = 0
    for word in words:
        kind = word >> 28
        if kind == 0x8:
            new = word & (2**28 - 1)
            loops += high is not None and high - new >= 2**27
            high = new
        elif kind in (0, 1) and high is not None:
            t = ((loops << 28 | high) << 6) + (word >> 22 & 63)
            rows.append((word >> 11 & 2047, word & 2047, t, kind == 1))
    return rows


def random_evt3(count: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    words, high = [0x2005, 0x3010, 0x4FFF], 4090  # events before any time mark
    for kind in rng.choice([0, 2, 3, 6, 8, 9, 0xA, 0xE, 7, 0xF], count):
        if kind == 0:
            words.append(int(rng.integers(720)))
        elif kind == 2:
            words.append(0x2000 | int(rng.integers(2)) << 11 | int(rng.integers(1280)))
        elif kind == 3:
            words.append(0x3000 | int(rng.integers(2)) << 11 | int(rng.integers(1200)))
            words += [0x4000 | int(rng.integers(4096)) for _ in range(rng.integers(1, 4))]
            words += [0x5000 | int(rng.integers(256)), 0xA001, 0x5000 | int(rng.integers(256))]
        elif kind in (8, 9):
            high = (high + int(kind == 8)) % 4096
            words.append(0x8000 | high)
        else:
            words.append(int(kind) << 12 | int(rng.integers(4096)))
    return words


def test_evt3_by_hand(tmp_path: Path) -> None:
    """Time, row, one event, then a vector of twelve and one of eight columns, worked out by hand."""
    words = [0x8001, 0x6002, 0x0064, 0x2805, 0x3014, 0x4801, 0x5003]
    (tmp_path / "a.raw").write_bytes(EVT3 + struct.pack("<7H", *words))
    t = 4096 + 2
    expected = [(5, 100, t, True), (20, 100, t, False), (31, 100, t, False)]
    expected += [(32, 100, t, False), (33, 100, t, False)]
    events = seen(tmp_path / "a.raw")
    assert rows_of(events) == expected
    assert (events.width, events.height) == (1280, 720)


def test_evt2_by_hand(tmp_path: Path) -> None:
    """A time mark of 3 · 64 µs, a growing event 5 µs later at (7, 9), a trigger, a fading event."""
    words = [0x8 << 28 | 3, 1 << 28 | 5 << 22 | 7 << 11 | 9, 0xA << 28 | 77, 6 << 22 | 639 << 11 | 479]
    (tmp_path / "a.raw").write_bytes(EVT2 + struct.pack("<4I", *words))
    events = seen(tmp_path / "a.raw")
    assert rows_of(events) == [(7, 9, 197, True), (639, 479, 198, False)]
    assert (events.width, events.height) == (640, 480)


@pytest.mark.parametrize("chunk", [3, 1000, 2**20])
@pytest.mark.parametrize("seed", [0, 1])
def test_evt3_against_word_by_word(
    chunk: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random streams with clock overflows give the same events, wherever the chunks are cut."""
    monkeypatch.setattr(prophesee, "CHUNK_WORDS", chunk)
    words = random_evt3(3000, seed)
    (tmp_path / "a.raw").write_bytes(EVT3 + np.array(words, "<u2").tobytes())
    expected = slow_evt3(words)
    assert len(expected) > 1000
    assert max(row[2] for row in expected) > 2**24  # the clock ran over
    assert rows_of(seen(tmp_path / "a.raw")) == expected


@pytest.mark.parametrize("chunk", [3, 2**20])
def test_evt2_against_word_by_word(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random streams, in which the clock runs over, give the same events."""
    monkeypatch.setattr(prophesee, "CHUNK_WORDS", chunk)
    rng = np.random.default_rng(0)
    words, high = [1 << 28], 2**28 - 50
    for kind in rng.choice([0, 1, 8, 0xA, 0xE, 0xF], 2000):
        if kind == 8:
            high = (high + 1) % 2**28
            words.append(8 << 28 | high)
        elif kind < 2:
            at = int(rng.integers(640)) << 11 | int(rng.integers(480))
            words.append(int(kind) << 28 | int(rng.integers(64)) << 22 | at)
        else:
            words.append(int(kind) << 28 | int(rng.integers(2**28)))
    (tmp_path / "a.raw").write_bytes(EVT2 + np.array(words, "<u4").tobytes())
    assert rows_of(seen(tmp_path / "a.raw")) == slow_evt2(words)
    assert slow_evt2(words)[-1][2] > 2**34


@pytest.mark.parametrize(
    ("head", "words", "expected"),
    [
        (b"% Version 2\n% Width 304\n% Height 240\n", [303 | 239 << 14 | 1 << 28], (303, 239, 9, True)),
        (b"% Version 1\n% Width 304\n% Height 240\n", [303 | 239 << 9], (303, 239, 9, False)),
        (b"% Date 2020\n", [639 | 1 << 14], (639, 1, 9, False)),
    ],
)
def test_dat_by_hand(head: bytes, words: list[int], expected: Row, tmp_path: Path) -> None:
    """x, y and polarity lie where the version says; without a size the smallest sensor that fits is taken."""
    (tmp_path / "a.dat").write_bytes(head + bytes([0x0C, 8]) + struct.pack("<2I", 9, *words))
    events = seen(tmp_path / "a.dat")
    assert rows_of(events) == [expected]
    assert (events.width, events.height) == ((640, 480) if b"Date" in head else (304, 240))


def test_the_clock_of_a_dat_runs_over(tmp_path: Path) -> None:
    """A 32-bit time that falls back by more than half its range goes on above 2³² µs."""
    body = struct.pack("<6I", 2**32 - 5, 1, 3, 1, 2, 1)
    (tmp_path / "a.dat").write_bytes(b"% Version 2\n" + bytes([0, 8]) + body)
    assert seen(tmp_path / "a.dat").t_us_N.tolist() == [2**32 - 5, 2**32 + 3, 2**32 + 2]


GOOD_DAT = b"% Width 304\n% Height 240\n" + bytes([0, 8]) + struct.pack("<2I", 0, 1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.raw", b"\x00\x01" * 40, "no header lines"),
        ("a.raw", EVT3.replace(b"EVT3", b"EVT21") + bytes(8), "EVT21"),
        ("a.raw", b"% evt 4.0\n" + bytes(8), "EVT4"),
        ("a.raw", b"% date now\n" + bytes(8), "encoding"),
        ("a.raw", EVT3 + b"\x01\x80\x05\x20\x05", "within a word"),
        ("a.raw", EVT3 + b"\x01\x80", "contains no events"),
        ("a.raw", EVT3, "contains no events"),
        ("a.raw", EVT3 + struct.pack("<3H", 0x8001, 0x02D0, 0x2005), "outside the 1280 × 720"),
        ("a.raw", EVT2.replace(b"640x480", b"0x480") + struct.pack("<2I", 8 << 28, 0), "sensor size of 0"),
        ("a.dat", GOOD_DAT[:-3], "within an event"),
        ("a.dat", GOOD_DAT.replace(bytes([0, 8]), bytes([0x0E, 8])), "no contrast events"),
        ("a.dat", GOOD_DAT[:26], "no contrast events"),
        ("a.dat", GOOD_DAT.replace(b"304", b"3e4"), "sensor size of 3e4"),
        ("a.dat", GOOD_DAT[:-4] + struct.pack("<I", 304), "outside the 304 × 240"),
        ("a.dat", GOOD_DAT[:27], "contains no events"),
        ("a.dat", b"% x\n" * 1000, "no contrast events"),
    ],
)
def test_bad_files_are_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    """Other encodings, torn files and events off the sensor are refused with the reason."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=reason):
        read("event", tmp_path / name)


def test_too_many_events_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors pack many events into few bytes; reading stops at the bound."""
    monkeypatch.setattr(prophesee, "MAX_EVENTS", 1000)
    (tmp_path / "a.raw").write_bytes(
        EVT3 + struct.pack("<2H", 0x8001, 0x3000) + struct.pack("<H", 0x4FFF) * 90
    )
    with pytest.raises(SampleError, match="1,080 events are more than"):
        read("event", tmp_path / "a.raw")
    (tmp_path / "a.dat").write_bytes(GOOD_DAT + struct.pack("<2I", 0, 1) * 1000)
    with pytest.raises(SampleError, match="1,001 events are more than"):
        read("event", tmp_path / "a.dat")
