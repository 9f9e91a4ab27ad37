"""Reads thermal pictures: 16-bit or float TIFF, and 8-bit pictures. Values are never clipped.

A TIFF declares temperatures by JSON in its ImageDescription tag:

    {"unit": "kelvin", "scale": 0.01, "offset": 0.0}        kelvin = stored value × scale + offset

`tifffile.imwrite(..., metadata={"unit": "kelvin", "scale": 0.01})` writes exactly that. `scale` and `offset`
are optional (1 and 0), and `"unit": "celsius"` adds 273.15. The word "centikelvin" in a prose description
means a scale of 0.01. Without either the values are counts: a vendor's private scale is not guessed.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from data.errors import SampleError
from data.readers.payload import AnyArray, ThermalPicture
from data.readers.pictures.image import MAX_PIXELS, open_picture
from data.readers.pictures.picture_file import orientation_of, the_picture, upright
from data.readers.untrusted import MEBIBYTE, check_file, decoding
from data.tiff import MAGICS

MAX_BYTES = 256 * MEBIBYTE
MAX_VALUE = 1e12  # above any sensor's counts, and its square still fits float32
CENTIKELVIN = (0.01, 0.0)  # scale, offset
# The warmest pixel of a picture: between a dark sky and a welding arc. Beyond, the scale is wrong, such as
# that of counts taken for kelvin.
COLDEST_K, HOTTEST_K = 50.0, 10_000.0
ZERO_CELSIUS_K = 273.15
PACKED_BITS = (10, 12, 14)  # sensors whose pixels are stored without padding
BLOCK_PIXELS = 2**20  # unpacked at once: bounds memory

# tifffile logs several lines for a damaged file; our one SampleError is enough.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def read_thermal(path: Path) -> ThermalPicture:
    """Read a thermal picture as float32[H, W], upright.

    Of a colour picture the luma is taken (ITU-R BT.601), since a false-colour palette cannot be undone.
    """
    check_file(path, max_bytes=MAX_BYTES)
    with decoding(path, "thermal picture"), path.open("rb") as file:
        directory = the_picture(path, file) if file.read(4) in MAGICS else None
    if directory is None:
        return ThermalPicture(_read_picture(path), "counts")
    page = _read_page(path, directory.number)
    if page.values_HW is None:
        values_HW = _read_picture(path)
    else:
        values_HW = upright(page.values_HW, orientation_of(path))
    if page.inverted:
        values_HW = 255 - values_HW
    if not np.isfinite(values_HW).all():
        raise SampleError(f"{path}: holds NaN or infinite values; replace the dead pixels")
    if not values_HW.size or np.abs(values_HW).max() > MAX_VALUE:
        raise SampleError(f"{path}: has no pixels, or absurdly large values; export it again")
    if page.scale is None:
        return ThermalPicture(values_HW, "counts")
    scale, offset = page.scale
    kelvin_HW = (values_HW.astype(np.float64) * scale + offset).astype(np.float32)
    if not np.isfinite(kelvin_HW).all() or kelvin_HW.min() < 0:
        raise SampleError(
            f"{path}: its scale gives temperatures that are infinite or below 0 K; correct its description"
        )
    if not COLDEST_K <= kelvin_HW.max() <= HOTTEST_K:
        raise SampleError(
            f"{path}: at most {kelvin_HW.max():,.4g} K by its description, which no thermal camera sees;"
            " correct the unit and the scale in it"
        )
    return ThermalPicture(kelvin_HW, "kelvin")


@dataclass(frozen=True, slots=True)
class _Page:
    """The page of a TIFF that holds its picture. `values_HW`: None where only Pillow can decompress it."""

    values_HW: AnyArray | None
    scale: tuple[float, float] | None  # to kelvin: factor, offset
    inverted: bool = False  # Pillow inverts 8-bit greys declared as "0 is white"


def _read_page(path: Path, number: int) -> _Page:
    with decoding(path, "thermal TIFF"), tifffile.TiffFile(path) as tiff:
        page = tiff.pages[number].aspage()
        if page.imagewidth * page.imagelength > MAX_PIXELS:
            raise SampleError(
                f"{path}: {page.imagewidth} × {page.imagelength} pixels are more than {MAX_PIXELS:,}; "
                "scale the picture down"
            )
        scale = _kelvin_scale(page.description, path)
        # A compressed strip may decompress to any size; libtiff, behind Pillow, bounds it by the picture's
        # size.
        plain = page.compression == 1 and page.samplesperpixel == 1 and page.dtype is not None
        if not plain:
            return _Page(None, scale, inverted=page.photometric == 0 and page.bitspersample == 8)
        if page.imagedepth != 1 or page.dtype.kind not in "uif":
            raise SampleError(
                f"{path}: not a single-channel picture of numbers; save it as 16-bit or float grey"
            )
        if page.bitspersample in PACKED_BITS:
            return _Page(_unpacked(page, path), scale)
        return _Page(page.asarray().reshape(page.imagelength, page.imagewidth).astype(np.float32), scale)


def _unpacked(page: tifffile.TiffPage, path: Path) -> AnyArray:
    """float32[H, W] of 10, 12 or 14-bit pixels, highest bit first; each row starts on a byte (TIFF 6.0)."""
    bits, width, height = page.bitspersample, page.imagewidth, page.imagelength
    row_bytes, whole = -(-width * bits // 8), page.rowsperstrip
    values_HW = np.empty((height, width), np.float32)
    block = max(1, BLOCK_PIXELS // width)
    if page.is_tiled or page.fillorder != 1 or len(page.dataoffsets) != -(-height // whole):
        raise SampleError(
            f"{path}: its {bits}-bit pixels are tiled or in reverse bit order; save it with 16 bits"
        )
    weights = 2 ** np.arange(bits - 1, -1, -1).astype(np.float32)
    with path.open("rb") as file:
        for strip, offset in enumerate(page.dataoffsets):
            file.seek(offset)
            end = min((strip + 1) * whole, height)
            for top in range(strip * whole, end, block):
                rows = min(block, end - top)
                packed_HB = np.frombuffer(file.read(rows * row_bytes), np.uint8).reshape(rows, row_bytes)
                bits_HWb = np.unpackbits(packed_HB, axis=1)[:, : width * bits].reshape(rows, width, bits)
                values_HW[top : top + rows] = bits_HWb @ weights
    return values_HW


def _kelvin_scale(description: str, path: Path) -> tuple[float, float] | None:
    """(scale, offset) to kelvin from a TIFF's ImageDescription, or None where it names no unit."""
    try:
        declared = json.loads(description)
    except (json.JSONDecodeError, RecursionError):  # most cameras write prose there
        return CENTIKELVIN if re.search(r"\bcentikelvin\b", description, re.IGNORECASE) else None
    if not isinstance(declared, dict) or "unit" not in declared:
        return None
    if declared["unit"] == "counts":
        return None
    scale, offset = declared.get("scale", 1.0), declared.get("offset", 0.0)
    if declared["unit"] not in {"kelvin", "celsius"} or not all(
        isinstance(value, int | float) for value in (scale, offset)
    ):
        raise SampleError(
            f"{path}: its description says unit {declared['unit']!r}; "
            'write {"unit": "kelvin", "scale": …, "offset": …}'
        )
    return float(scale), float(offset) + (ZERO_CELSIUS_K if declared["unit"] == "celsius" else 0.0)


def _read_picture(path: Path) -> AnyArray:
    """float32[H, W] read with Pillow: greys of any depth unchanged, colours as luma."""
    with open_picture(path) as (picture, orientation), decoding(path, "thermal picture"):
        grey = picture.mode in {"L", "I", "F"} or picture.mode.startswith("I;16")
        values_HW = np.array(picture if grey else picture.convert("L"), dtype=np.float32)
        return upright(values_HW, orientation)
