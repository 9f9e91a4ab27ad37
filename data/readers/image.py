"""Pictures, through Pillow: bounded, upright, whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.errors import SampleError
from data.readers.payload import AnyArray, Picture
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 256 * MEBIBYTE
SHORT_SIDE = 448  # of a reduced JPEG, at least: twice what any encoder here looks at
MAX_PIXELS = 64_000_000  # 192 MB decoded; below Pillow's own alarm at 89 million

# Never EPS or PDF (they start Ghostscript) and no rare decoder that only an attacker would ask for.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")

# Pillow warns at 89 million pixels; here anything above MAX_PIXELS is refused by name instead.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path, *, short_side: int = SHORT_SIDE) -> Picture:
    """Read a picture as 8-bit RGB: EXIF orientation applied, transparency laid on white, 16-bit greys scaled.

    A JPEG whose short side is twice `short_side` or more is decoded at 1/2, 1/4 or 1/8 of its size, which
    averages its pixels: 12 megapixels then take 20 ms instead of 210. An animated file gives its first frame.
    Raises `SampleError` for truncated files, for more than `MAX_PIXELS` and for float or 32-bit pixels, whose
    white is not defined.
    """
    with open_picture(path, short_side=short_side) as picture, decoding(path, "picture"):
        rgb_HW3 = _to_rgb(ImageOps.exif_transpose(picture), path)
    return Picture(rgb_HW3)


@contextmanager
def open_picture(path: Path, *, short_side: int | None = None) -> Iterator[Image.Image]:
    """A decoded Pillow picture, bounded and whole, in its file's own mode and orientation.

    With `short_side` a JPEG may come reduced, to no less than that.
    """
    check_file(path, max_bytes=MAX_BYTES)
    with decoding(path, "picture"):
        picture = Image.open(path, formats=FORMATS)
    with picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise SampleError(
                f"{path}: {width} × {height} pixels are more than {MAX_PIXELS:,}; scale the picture down"
            )
        with decoding(path, "picture"):
            if short_side is not None:
                picture.draft(None, (short_side, short_side))  # JPEG's own scaling; nothing elsewhere
            picture.load()  # here Pillow finds a truncated file
        yield picture


def _to_rgb(picture: Image.Image, path: Path) -> AnyArray:
    """uint8[H, W, 3] of a decoded picture of any defined white."""
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255; 65535 / 255 = 257.
        grey_HW = np.rint(np.asarray(picture, dtype=np.float32) / 257).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if picture.mode in {"I", "F"}:
        raise SampleError(f"{path}: 32-bit pixels have no defined white; save it with 8 or 16 bits a channel")
    if picture.has_transparency_data:
        cut_out = picture.convert("RGBA")
        white = Image.new("RGBA", cut_out.size, "white")
        picture = Image.alpha_composite(white, cut_out)
    return np.array(picture.convert("RGB"))
