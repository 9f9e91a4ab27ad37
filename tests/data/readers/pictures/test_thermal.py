"""Thermal pictures: kelvin where the file says so, counts elsewhere, never clipped."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.payload import ThermalPicture

CENTIKELVIN = (29000 + 10 * np.indices((24, 32)).sum(axis=0)).astype(np.uint16)


def thermal(path: Path) -> ThermalPicture:
    payload = read("thermal", path)
    assert isinstance(payload, ThermalPicture)
    return payload


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_scaled_kelvin(compression: str | None, tmp_path: Path) -> None:
    """A TIFF that tells its unit and scale gives kelvin, packed or not."""
    told = {"unit": "kelvin", "scale": 0.01}
    tifffile.imwrite(tmp_path / "a.tif", CENTIKELVIN, metadata=told, compression=compression)
    picture = thermal(tmp_path / "a.tif")
    assert picture.unit == "kelvin"
    np.testing.assert_allclose(picture.values_HW, CENTIKELVIN / 100.0, rtol=1e-6)


def test_celsius_by_offset(tmp_path: Path) -> None:
    """Float degrees Celsius are kelvin with an offset."""
    told = {"unit": "kelvin", "offset": 273.15}
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), -10.0, np.float32), metadata=told)
    np.testing.assert_allclose(thermal(tmp_path / "a.tif").values_HW, 263.15, rtol=1e-6)


def test_centikelvin_in_prose(tmp_path: Path) -> None:
    """The word centikelvin in a description is enough."""
    tifffile.imwrite(
        tmp_path / "a.tif", CENTIKELVIN, description="units of 0.01 K (centikelvin)", metadata=None
    )
    assert thermal(tmp_path / "a.tif").unit == "kelvin"
    np.testing.assert_allclose(thermal(tmp_path / "a.tif").values_HW, CENTIKELVIN / 100.0, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_counts_of_every_number_type(dtype: Any, byteorder: Any, tmp_path: Path) -> None:
    """Without a unit, any single-channel TIFF gives its stored numbers as counts, to their full range."""
    stored = np.array(
        [[0, 1, 2], [3, 100, np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 6e4]], dtype
    )
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder)
    picture = thermal(tmp_path / "a.tif")
    assert picture.unit == "counts"
    np.testing.assert_allclose(picture.values_HW, stored.astype(np.float64), rtol=1e-6)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32])
def test_packed_counts_are_right_or_refused(dtype: Any, byteorder: Any, tmp_path: Path) -> None:
    """Of compressed big-endian numbers Pillow turns the bytes around twice; unsigned ones it reads."""
    stored = (CENTIKELVIN % 120).astype(dtype) if np.dtype(dtype).itemsize == 1 else CENTIKELVIN.astype(dtype)
    for how in ({}, {"predictor": True} if np.dtype(dtype).kind != "f" else {}, {"tile": (16, 16)}):
        tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder, compression="zlib", **how)  # type: ignore[arg-type]
        if byteorder == ">" and dtype in {np.int16, np.uint32, np.int32, np.float32}:
            with pytest.raises(SampleError, match=r"big-endian|not a readable"):
                read("thermal", tmp_path / "a.tif")
        else:
            np.testing.assert_array_equal(thermal(tmp_path / "a.tif").values_HW, stored.astype(np.float32))


@pytest.mark.parametrize("ending", ["png", "lzw.tif"])
def test_sixteen_bits_through_pillow(ending: str, tmp_path: Path) -> None:
    """16-bit PNG and LZW-packed TIFF, which tifffile alone cannot unpack, keep all their bits."""
    options = {"compression": "tiff_lzw"} if ending.endswith("tif") else {}
    Image.fromarray(CENTIKELVIN).save(tmp_path / f"a.{ending}", **options)
    np.testing.assert_array_equal(thermal(tmp_path / f"a.{ending}").values_HW, CENTIKELVIN)


def save_packed(path: Path, stored: Any, bits: int, *, strip_rows: int) -> None:
    """A TIFF of `bits` bits a pixel, written byte by byte as TIFF 6.0 says (tifffile cannot)."""
    height, width = stored.shape
    rows = ["".join(f"{value:0{bits}b}" for value in row) for row in stored.tolist()]
    packed = [bytes(int(row[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(row), 8)) for row in rows]
    strips = [b"".join(packed[top : top + strip_rows]) for top in range(0, height, strip_rows)]
    count, tags_at = len(strips), 8
    lists_at = tags_at + 2 + 9 * 12 + 4
    data_at = lists_at + 8 * count
    offsets = [data_at + sum(map(len, strips[:i])) for i in range(count)]
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: lists_at, 277: 1, 278: strip_rows}
    tags[279] = lists_at + 4 * count
    if count == 1:  # a list of one stands in the tag itself
        tags[273], tags[279] = offsets[0], len(strips[0])
    entries = [
        struct.pack("<HHII", tag, 4, count if tag in (273, 279) else 1, value) for tag, value in tags.items()
    ]
    lists = struct.pack(f"<{2 * count}I", *offsets, *map(len, strips))
    head = b"II*\0" + struct.pack("<IH", tags_at, len(tags)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(head + lists + b"".join(strips))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("strip_rows", [24, 7])
def test_pixels_packed_without_room_between_them(
    bits: int, strip_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sensors of 10, 12 and 14 bits keep all of them, in one strip or several, in blocks or at once."""
    stored = np.random.default_rng(0).integers(0, 2**bits, (24, 33))
    save_packed(tmp_path / "a.tif", stored, bits, strip_rows=strip_rows)
    np.testing.assert_array_equal(thermal(tmp_path / "a.tif").values_HW, stored)
    monkeypatch.setattr("data.readers.pictures.thermal.BLOCK_PIXELS", 100)
    np.testing.assert_array_equal(thermal(tmp_path / "a.tif").values_HW, stored)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-40])
    with pytest.raises(SampleError, match="not a readable"):
        read("thermal", tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_counts_are_the_stored_numbers_whichever_is_white(
    compression: str | None, dtype: Any, tmp_path: Path
) -> None:
    """Where 0 is said to be white, counts are still what is stored, packed or not."""
    stored = (CENTIKELVIN % 256).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(thermal(tmp_path / "a.tif").values_HW, stored)


def test_celsius_becomes_kelvin(tmp_path: Path) -> None:
    """A unit of celsius adds 273.15 after scale and offset."""
    told = {"unit": "celsius", "scale": 0.1, "offset": -40}
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 600, np.uint16), metadata=told)
    picture = thermal(tmp_path / "a.tif")
    assert picture.unit == "kelvin"
    np.testing.assert_allclose(picture.values_HW, 273.15 + 20, rtol=1e-6)


def test_coloured_pictures_give_luma(tmp_path: Path) -> None:
    """A false-colour picture gives counts by ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(thermal(tmp_path / "a.png").values_HW, expected, atol=1)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"unit": "kelvin", "offset": -1000.0}, "below 0 K"),
        ({"unit": "fahrenheit"}, "fahrenheit"),
        ({"unit": "kelvin", "scale": "0.01"}, "scale"),
    ],
)
def test_units_that_cannot_be_are_refused(told: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Temperatures below absolute zero and unknown units are refused, not guessed."""
    tifffile.imwrite(tmp_path / "a.tif", CENTIKELVIN // 100, metadata=told)
    with pytest.raises(SampleError, match=reason):
        read("thermal", tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("told", "stored"),
    [
        ({"unit": "kelvin"}, CENTIKELVIN),  # counts of 0.01 K without their scale
        ({"unit": "celsius"}, CENTIKELVIN),
        ({"unit": "kelvin", "scale": 0.01}, CENTIKELVIN // 100),  # kelvin, scaled again
        ({"unit": "celsius", "offset": -273.15}, CENTIKELVIN / 1000.0),
    ],
)
def test_temperatures_that_no_camera_sees_are_refused(
    told: dict[str, Any], stored: Any, tmp_path: Path
) -> None:
    """A forgotten scale makes 29,000 K of a room, a doubled one 3 K."""
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(stored, np.float32), metadata=told)
    with pytest.raises(SampleError, match="which no thermal camera sees"):
        read("thermal", tmp_path / "a.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_dead_pixels_are_refused(value: float, tmp_path: Path) -> None:
    """NaN, infinite and absurd values are refused by name."""
    values = np.ones((8, 8), np.float32)
    values[3, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(SampleError, match=r"NaN|absurdly large"):
        read("thermal", tmp_path / "a.tif")


def test_sequences_are_refused_but_thumbnails_pass(tmp_path: Path) -> None:
    """Two frames in one TIFF are refused, not cut to the first; a reduced copy is ignored."""
    tifffile.imwrite(tmp_path / "two.tif", np.stack([CENTIKELVIN, CENTIKELVIN]), photometric="minisblack")
    with pytest.raises(SampleError, match="holds 2 pictures"):
        read("thermal", tmp_path / "two.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("first", [False, True])
def test_a_thumbnail_is_never_the_picture(first: bool, compression: Any, tmp_path: Path) -> None:
    """A reduced copy is ignored, behind the picture and before it, packed or not; so is its orientation."""
    thumbnail, picture = (CENTIKELVIN[::4, ::4], 1), (CENTIKELVIN, 0)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for values, kind in (thumbnail, picture) if first else (picture, thumbnail):
            turned = [(274, 3, 1, 3, False)] if kind else []
            tiff.write(values, subfiletype=kind, compression=compression, extratags=turned)
    np.testing.assert_array_equal(thermal(tmp_path / "a.tif").values_HW, CENTIKELVIN)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_pictures_are_refused(share: float, tmp_path: Path) -> None:
    """A TIFF cut inside its pixels is refused."""
    tifffile.imwrite(tmp_path / "a.tif", CENTIKELVIN)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SampleError, match="not a readable"):
        read("thermal", tmp_path / "a.tif")


def test_a_huge_declared_size_is_refused(tmp_path: Path) -> None:
    """A header that declares 10¹⁰ pixels is refused before memory is taken."""
    tifffile.imwrite(tmp_path / "a.tif", CENTIKELVIN)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(100_000, dtype="I")
        tiff.pages.first.tags["ImageLength"].overwrite(100_000, dtype="I")
    with pytest.raises(SampleError, match="100000 × 100000 pixels"):
        read("thermal", tmp_path / "a.tif")
