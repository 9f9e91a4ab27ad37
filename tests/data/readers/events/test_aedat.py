"""AEDAT 4 against files of iniVation's own writer, and against files built here to be hostile."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.events import aedat
from data.readers.payload import Events

# Five events written by `dv_processing` 2.0.4 (iniVation's library), whole files, packed once more by zlib.
WRITTEN = {
    "zstd": (
        "eNpTVnR0DdJ1cQwx0TPg5VJhZmCQYGBg8PT3cGUAAy4GEQYWBh4GDiCLgQEoDWQzMMxhhsh+YGJgsEkpUyhLLSrOzM+zVTLSM1Cy"
        "41IAApu8/JRUhbzE3FRbpfzSEs+8tHwlhYLEkgxbJX0oXx+qFF25AYZCA2SlYOWJJSVFCtmplbZKyfm5BUWpxSD7lRRKKguABhSX"
        "FGXmpSvZRQWHuNjog5Ti1J1flJmemZeY45ufUpqT6ge0H90Q3/y8fGegeFFieFFmSWoRkQb6l5YUlJZgMzC1LDWvpJiAMSAtLqnF"
        "yUWZBSVYfOZcWlySn6uQkliSCJZRyAdbp0eEqZ4pQOsz0zJTi9ANdQ0LCcZqAFLcZGKLRwP9TLToxGJ3cWZVagTMysy8EiU7YxMz"
        "bNZh0ReJos/IzIAYffmlRckYgR/iGhyC1Y/6IE8ipUckPoxto59SZsfFAAVxQKyxVf+vQsFaJoZNLQJyG8yLU6QUlhw6IphwuWXb"
        "q2brqT+W7av5ouDm2vElbtn+jbOYH2g/UtHlkS6xcXN39A3ZpZI0z73CevdppbuMBxf8+uTEzpCgYCBxhyGXwTCNL43hFNj0BF+g"
        "6S780gvM1zL+f/F/fdLvr9kiWTvvCm+PeLLtrk+Qlgor/8arCreccww7Dy8W3JF4Su+qMeeMVeL2+9U/yXFwvD3FzcgiwNC83tD7"
        "oDAAEJMvFQ=="
    ),
    "lz4": (
        "eNqNU0tv00AQnjZJiywaWaiHFCFqthEniN0SVT04VtM2EZEIlajF+2LibVmR7FrrdaRyQj33L/TCid44cuQn8EcQjzMHxosbBdeI"
        "jDTrGe8337evWbvV7jy6u9f2mw1nyaiXAGoA0Nu/3wFtBuZluApXMAKYQzfRP5ZgYt/mAdxwbI2pjJngLbLRcIhnWGguFyG1eDCi"
        "LSIS1eOHglhRoF63iJ3ldgbNw51LQGcaquGBUtJ6Q49bZCBGkaRxqk8sdRwhQawk40fEe/C86dop8p/FQrIjxoNhX4TJkD5E+TxH"
        "X3Cxi/9l8EQyReWMhPuJihJVREjHlKv4PzRpyR6NB5JFqmBju0msxMgKAxXoGUtoucYMrL0Q5dkhozJP2nnsHxQSTF0NK7pGx2a5"
        "2yzQjtlb+vRCknFFvHvNzSK5grpnf9VtbDqz1IlEDi4dvt858Av3aKebnHqOU/lF7Nrh2DP0u5foZdKvbW9/HmD4c22YNUd6hgAL"
        "2DJlHBGEXkF/dX6zVjcWoAofNIH3yYT16/AVx/PFVQvWK3BiAvmyZcJ7F850s3VPTXi3Mvdr0m2Z4gsMf9x+mSl2/fZOXjGtXtYl"
        "VbiDDVzG7AbUoboMJ38W75WW4FplEb7PT5bWPV3V39R+AxsQ/1Q="
    ),
}
# What was given to that writer, and what the `aedat` package (2.3.0) reads back.
TIMES = [1700000000026978, 1700000000030782, 1700000000051113, 1700000000063696, 1700000000085062]
COLUMNS, ROWS = [14, 26, 5, 60, 281], [168, 237, 130, 157, 252]

ABOUT = (
    '<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier">EVTS</attr>'
    '<node name="info"><attr key="sizeX">346</attr><attr key="sizeY">260</attr></node></node>'
    '<node name="1"><attr key="typeIdentifier">FRME</attr></node></node></dv>'
)


def header(about: str = ABOUT, *, packing: int = 0, end: int = -1) -> bytes:
    """Magic and header: a FlatBuffers table of a number, a long and a text."""
    text = about.encode()
    table = struct.pack("<iIqI", 12, packing, end, 4)  # back to its vtable, the fields, where the text is
    vtable = struct.pack("<6H", 10, 20, 4, 8, 16, 0)
    body = struct.pack("<I", 4 + 12) + vtable + table + struct.pack("<I", len(text)) + text
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(body)) + body


def events_buffer(events: list[tuple[int, int, int, bool]], *, count: int | None = None) -> bytes:
    """A packet's FlatBuffer with its size before it; `count` lies about how many events there are."""
    rows = b"".join(struct.pack("<qhhB3x", *event) for event in events)
    vtable = struct.pack("<4H", 6, 8, 4, 0)
    body = struct.pack("<I4s", 16, b"EVTS") + vtable + struct.pack("<iI", 8, 4)
    body += struct.pack("<I", len(events) if count is None else count) + rows
    return struct.pack("<I", len(body)) + body


def packet(stream: int, payload: bytes) -> bytes:
    return struct.pack("<iI", stream, len(payload)) + payload


def seen(path: Path) -> Events:
    payload = read("event", path)
    assert isinstance(payload, Events)
    return payload


EVENTS = [(5, 1, 2, True), (7, 345, 259, False)]


@pytest.mark.parametrize("packing", WRITTEN)
def test_files_of_the_makers_writer(packing: str, tmp_path: Path) -> None:
    """What iniVation's own library wrote is read as it was given to it."""
    (tmp_path / "a.aedat4").write_bytes(zlib.decompress(base64.b64decode(WRITTEN[packing])))
    events = seen(tmp_path / "a.aedat4")
    assert events.t_us_N.tolist() == TIMES
    assert events.x_N.tolist() == COLUMNS
    assert events.y_N.tolist() == ROWS
    assert events.polarity_N.tolist() == [False, False, False, True, False]
    assert (events.width, events.height) == (346, 260)


@pytest.mark.parametrize(("packing", "codec"), [(0, None), (1, "lz4"), (4, "zstd")])
def test_packets_of_other_streams_are_passed_over(packing: int, codec: str | None, tmp_path: Path) -> None:
    """Events of two packets come in order, frames between them are not looked at."""
    packed = [
        payload if codec is None else pa.Codec(codec).compress(payload, asbytes=True)
        for payload in (events_buffer(EVENTS[:1]), events_buffer(EVENTS[1:]))
    ]
    parts = [packet(0, packed[0]), packet(1, b"no picture at all"), packet(0, packed[1])]
    (tmp_path / "a.aedat4").write_bytes(header(packing=packing) + b"".join(parts))
    events = seen(tmp_path / "a.aedat4")
    assert list(zip(events.t_us_N, events.x_N, events.y_N, events.polarity_N, strict=True)) == EVENTS


def test_the_table_at_the_end_is_no_packet(tmp_path: Path) -> None:
    """Reading stops where the header says that the packets end."""
    body = packet(0, events_buffer(EVENTS))
    start = len(header())
    (tmp_path / "a.aedat4").write_bytes(header(end=start + len(body)) + body + b"a table of anything")
    assert len(seen(tmp_path / "a.aedat4").x_N) == 2


GOOD = packet(0, events_buffer(EVENTS))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#!AER-DAT3.1\r\n" + GOOD, "not an AEDAT 4 file"),
        (header()[:40], "not a readable"),
        (header(packing=9) + GOOD, "not a readable"),
        (header(ABOUT.replace("EVTS", "IMUS")) + GOOD, "0 streams of events"),
        (header(ABOUT.replace("FRME", "EVTS")) + GOOD, "2 streams of events"),
        (header('<!DOCTYPE a [<!ENTITY a "aaaa">]>' + ABOUT) + GOOD, "document type"),
        (header(ABOUT.replace('name="info"', 'name="x"')) + GOOD, "without a sensor"),
        (header() + GOOD[:-5], "truncated"),
        (header() + GOOD + b"\0\0", "truncated"),
        (header(end=10**9) + GOOD, "truncated"),
        (header() + packet(0, events_buffer(EVENTS, count=10**9)), "not a readable"),
        (header() + packet(0, b"\xff" * 64), "not a readable"),
        (header(packing=1) + GOOD, "not a readable"),
        (header(packing=3) + GOOD, "not a readable"),
        (header() + packet(1, b"frame"), "contains no events"),
        (header() + packet(0, events_buffer([(5, 346, 0, True)])), "outside the 346 × 260"),
        (header() + packet(0, events_buffer([(5, -1, 0, True)])), "outside"),
    ],
)
def test_bad_files_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    """Other versions, torn packets, lies about sizes, entities and unknown packings are refused."""
    (tmp_path / "a.aedat4").write_bytes(content)
    with pytest.raises(SampleError, match=reason):
        read("event", tmp_path / "a.aedat4")


def test_bombs_are_unpacked_no_further_than_their_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet that would unpack to 64 MiB is read as far as events are allowed, and refused."""
    monkeypatch.setattr(aedat, "MAX_EVENTS", 100)
    bomb = events_buffer([], count=4_000_000) + bytes(2**26)
    (tmp_path / "a.aedat4").write_bytes(
        header(packing=3) + packet(0, pa.Codec("zstd").compress(bomb, asbytes=True))
    )
    with pytest.raises(SampleError, match="not a readable"):
        read("event", tmp_path / "a.aedat4")
