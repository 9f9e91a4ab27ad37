"""Reads pictures with Pillow: bounded in size, upright, complete."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.errors import SampleError
from data.readers.payload import AnyArray, Picture
from data.readers.pictures.picture_file import pixels_of, upright
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 256 * MEBIBYTE
SHORT_SIDE = 448  # pixels, at least, of a reduced JPEG: twice the input of any encoder here
MAX_PIXELS = 64_000_000  # 192 MB decoded; below Pillow's own limit of 89 million

# Never EPS or PDF (they start Ghostscript), nor rare decoders that only an attacker would use.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")

BITS, COMPRESSION, PHOTOMETRIC, PLANES = 258, 259, 262, 284  # tags of a TIFF

# Pillow warns at 89 million pixels; here anything above MAX_PIXELS is refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Its other warnings (unusual tags, metadata) concern no pixel, and name its own source file.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: Path, *, short_side: int = SHORT_SIDE) -> Picture:
    """Read a picture as 8-bit RGB: EXIF orientation applied, transparency composited on white.

    16-bit greys are scaled and rounded (value / 257); of 16-bit colours Pillow keeps the high byte.

    A JPEG whose short side is twice `short_side` or more is decoded at 1/2, 1/4 or 1/8 of its size, which
    averages its pixels: 12 megapixels then take 20 ms instead of 210. Of an animation the first frame is
    read. Raises `SampleError` for truncated files, for more than `MAX_PIXELS`, and for float or 32-bit
    pixels, which have no defined white.
    """
    with open_picture(path, short_side=short_side) as (picture, orientation), decoding(path, "picture"):
        return Picture(upright(_to_rgb(picture, path), orientation))


@contextmanager
def open_picture(path: Path, *, short_side: int | None = None) -> Iterator[tuple[Image.Image, int]]:
    """A decoded Pillow picture, bounded and complete, in the file's own mode; and its orientation for
    `upright`.

    With `short_side` a JPEG may be reduced, but not below that size.
    """
    check_file(path, max_bytes=MAX_BYTES)
    with ExitStack() as opened:
        with decoding(path, "picture"):
            source, orientation = pixels_of(path)
            if not isinstance(source, Path):
                opened.enter_context(source)
            try:
                picture = opened.enter_context(Image.open(source, formats=FORMATS))
            except Image.DecompressionBombError:
                raise SampleError(
                    f"{path}: more than {MAX_PIXELS:,} pixels; scale the picture down"
                ) from None
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise SampleError(
                f"{path}: {width} × {height} pixels are more than {MAX_PIXELS:,}; scale the picture down"
            )
        if picture.format == "TIFF":
            _require_right_order(picture, path)
        with decoding(path, "picture"):
            if short_side is not None:
                picture.draft(None, (short_side, short_side))  # JPEG's own scaling; nothing elsewhere
            picture.load()  # raises for a truncated file
        yield picture, orientation


def _require_right_order(picture: Image.Image, path: Path) -> None:
    """Raise `SampleError` for two kinds of TIFF that Pillow reads as other numbers, without an error.

    Big-endian numbers other than unsigned ones come from libtiff, which decompresses them, in this machine's
    order, and Pillow turns their bytes around once more. Of 16-bit colours in planes it reads the bytes as
    colours.
    """
    tags: Any = getattr(picture, "tag_v2", {})
    packed = tags.get(COMPRESSION, 1) != 1
    if packed and getattr(tags, "prefix", b"") == b"MM" and picture.mode in {"I", "F"}:
        raise SampleError(
            f"{path}: compressed big-endian numbers are not read; save it uncompressed, or little-endian"
        )
    if not packed and tags.get(PLANES, 1) == 2 and max(tags.get(BITS, (8,))) > 8:
        raise SampleError(f"{path}: 16-bit colours in separate planes are not read; save them pixel by pixel")


def _zero_is_white(picture: Image.Image) -> bool:
    """Whether a TIFF declares that 0 is white (TIFF 6.0, PhotometricInterpretation)."""
    return picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0


def _to_rgb(picture: Image.Image, path: Path) -> AnyArray:
    """uint8[H, W, 3] of a decoded picture of any defined white."""
    # Pillow reads 16-bit PGM greys as 32-bit numbers, always scaled to a maximum of 65535.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        # Pillow's own conversion clips at 255; 65535 / 255 = 257.
        grey_HW = np.rint(np.asarray(picture, dtype=np.float32) / 257).astype(np.uint8)
        if (key := picture.info.get("transparency")) is not None:  # of a PNG: one grey that is transparent
            grey_HW[np.asarray(picture) == key] = 255
        if _zero_is_white(picture):  # Pillow inverts such greys of 1 to 8 bits only
            grey_HW = 255 - grey_HW
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if picture.mode in {"I", "F"}:
        raise SampleError(f"{path}: 32-bit pixels have no defined white; save it with 8 or 16 bits a channel")
    if picture.has_transparency_data:
        cut_out = picture.convert("RGBA")
        white = Image.new("RGBA", cut_out.size, "white")
        picture = Image.alpha_composite(white, cut_out)
    return np.array(picture.convert("RGB"))
