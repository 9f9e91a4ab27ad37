"""PCD's packed form: fields one after the other, under LZF."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.payload import Bytes, Floats, Points
from data.readers.points.pcd import _unpack_lzf

COUNT = 300


def pack_lzf(plain: bytes) -> bytes:
    """LZF as LibLZF writes it: the last place of every three bytes is kept, runs are at most 32 long."""
    packed, run, seen, at = bytearray(), bytearray(), dict[bytes, int](), 0

    def flush() -> None:
        for start in range(0, len(run), 32):
            part = run[start : start + 32]
            packed.extend(bytes([len(part) - 1]) + part)
        run.clear()

    while at < len(plain):
        key = plain[at : at + 3]
        place = seen.get(key, -1) if len(key) == 3 else -1
        seen[key] = at
        if place < 0 or at - place > 8192:
            run.append(plain[at])
            at += 1
            continue
        length = 3
        while length < 264 and at + length < len(plain) and plain[place + length] == plain[at + length]:
            length += 1
        flush()
        back, coded = at - place - 1, length - 2
        packed += bytes([min(coded, 7) << 5 | back >> 8])
        packed += bytes([coded - 7]) if coded >= 7 else b""
        packed += bytes([back & 255])
        at += length
    flush()
    return bytes(packed)


def save(path: Path, xyz: Floats, rgb: Bytes, *, packed: bytes | None = None, points: int = COUNT) -> None:
    plain = np.ascontiguousarray(xyz.T).tobytes()
    plain += (rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)).astype("<u4").tobytes()
    packed = pack_lzf(plain) if packed is None else packed
    head = (
        f"VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH {points}\n"
        f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA binary_compressed\n"
    )
    path.write_bytes(head.encode() + struct.pack("<II", len(packed), len(plain)) + packed)


@pytest.fixture
def xyz() -> Floats:
    steps = np.random.default_rng(0).integers(0, 4, (COUNT, 3))
    return steps.astype(np.float32)  # repeats itself, so that it packs


@pytest.fixture
def rgb() -> Bytes:
    return np.random.default_rng(1).integers(0, 256, (COUNT, 3)).astype(np.uint8)


def test_packed_clouds_are_read(tmp_path: Path, xyz: Floats, rgb: Bytes) -> None:
    """Coordinates and colours come out as they went in."""
    save(tmp_path / "a.pcd", xyz, rgb)
    cloud = read("point", tmp_path / "a.pcd")
    assert isinstance(cloud, Points)
    np.testing.assert_array_equal(cloud.xyz_N3, xyz)
    assert cloud.rgb_N3 is not None
    np.testing.assert_array_equal(cloud.rgb_N3, rgb)


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x02abc", b"abc"),
        (b"\x02abc\x20\x02", b"abcabc"),  # three bytes from three back
        (b"\x00a\xe0\x01\x00", b"a" * 11),  # ten bytes from one back: they overlap what they write
        (b"\x01ab\x60\x01", b"abababa"),
    ],
)
def test_lzf_by_hand(packed: bytes, plain: bytes) -> None:
    """Runs and copies, short and long, overlapping and not, worked out by hand."""
    assert _unpack_lzf(packed, len(plain)) == plain


def test_lzf_there_and_back() -> None:
    """What was packed by another hand comes back, whatever repeats in it."""
    rng = np.random.default_rng(0)
    for letters in (1, 2, 5, 256):
        plain = rng.integers(0, letters, 5000).astype(np.uint8).tobytes()
        assert _unpack_lzf(pack_lzf(plain), len(plain)) == plain


@pytest.mark.parametrize("packed", [b"\x02ab", b"\x20\x05", b"\xe0", b"", b"\x00a\xe0\xff\x00" * 999])
def test_torn_and_endless_packings_are_refused(
    packed: bytes, tmp_path: Path, xyz: Floats, rgb: Bytes
) -> None:
    """Cut short, pointing before the beginning, or unpacking to more than declared: one line."""
    save(tmp_path / "a.pcd", xyz, rgb, packed=packed)
    with pytest.raises(SampleError, match="not a readable PCD"):
        read("point", tmp_path / "a.pcd")


def test_sizes_that_do_not_agree_are_refused(tmp_path: Path, xyz: Floats, rgb: Bytes) -> None:
    """A number of points that the packed size does not bear out is refused before memory is taken."""
    save(tmp_path / "a.pcd", xyz, rgb, points=10**9)
    with pytest.raises(SampleError, match="truncated"):
        read("point", tmp_path / "a.pcd")


@pytest.mark.parametrize("name", ["rgb", "rgba"])
def test_colours_as_text_are_packed_floats_or_integers(
    name: str, tmp_path: Path, xyz: Floats, rgb: Bytes
) -> None:
    """Programs declare them as floats and write either; the colours are the same."""
    packed = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    head = (
        f"FIELDS x y z {name}\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        f"WIDTH {COUNT}\nHEIGHT 1\nPOINTS {COUNT}\nDATA ascii\n"
    )
    opaque = packed.astype(np.int64) + (0xFF000000 if name == "rgba" else 0)
    for colours in (packed.astype(np.uint32).view(np.float32).astype(str), opaque.astype(str)):
        lines = [f"{x:.9g} {y:.9g} {z:.9g} {c}" for (x, y, z), c in zip(xyz, colours, strict=True)]
        (tmp_path / "a.pcd").write_text(head + "\n".join(lines) + "\n")
        cloud = read("point", tmp_path / "a.pcd")
        assert isinstance(cloud, Points)
        np.testing.assert_array_equal(cloud.rgb_N3, rgb)


@pytest.mark.parametrize(
    ("kind", "size", "x"), [("I", 4, "0.5"), ("U", 1, "300"), ("U", 2, "-1"), ("I", 4, "nan")]
)
def test_numbers_that_do_not_fit_their_type_are_refused(kind: str, size: int, x: str, tmp_path: Path) -> None:
    """Fractions declared as whole numbers were cut off, larger numbers began again at 0."""
    head = (
        f"VERSION .7\nFIELDS x y z\nSIZE {size} 4 4\nTYPE {kind} F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\n"
        "POINTS 20\nDATA ascii\n"
    )
    lines = [f"{number} {number * 0.5} 1.0" for number in range(20)]
    (tmp_path / "a.pcd").write_text(head + "\n".join(lines))
    read("point", tmp_path / "a.pcd")
    (tmp_path / "a.pcd").write_text(head + "\n".join([*lines[:-1], f"{x} 1.0 1.0"]))
    with pytest.raises(SampleError, match="a number of x does not fit"):
        read("point", tmp_path / "a.pcd")
