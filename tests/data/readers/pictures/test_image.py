"""Pictures: what Pillow gives, made upright, opaque and bounded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.errors import SampleError
from data.modality import guess_modality
from data.readers import read_here as read
from data.readers.payload import Bytes, Picture
from data.readers.pictures.image import SHORT_SIDE


def rgb_of(path: Path) -> Bytes:
    payload = read("image", path)
    assert isinstance(payload, Picture)
    return payload.rgb_HW3


def gradient(height: int = 24, width: int = 40) -> Bytes:
    rows, columns = np.indices((height, width))
    return np.stack([rows * 8, columns * 5, 255 - rows * 4], axis=2).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "webp", "tif"])
def test_lossless_formats_come_through_bit_for_bit(ending: str, tmp_path: Path) -> None:
    """What was saved without loss is read back exactly, as uint8 RGB."""
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(gradient()).save(path, lossless=True)  # WebP's option; the others are lossless anyway
    np.testing.assert_array_equal(rgb_of(path), gradient())


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, lambda rgb: rgb[:, ::-1]),
        (3, lambda rgb: rgb[::-1, ::-1]),
        (6, lambda rgb: np.rot90(rgb, -1)),
        (8, lambda rgb: np.rot90(rgb, 1)),
    ],
)
def test_exif_orientation_is_honoured(orientation: int, turned: object, tmp_path: Path) -> None:
    """A camera's orientation tag (EXIF 2.3, tag 274) turns the picture upright."""
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(gradient()).save(path, exif=exif)
    np.testing.assert_array_equal(rgb_of(path), turned(gradient()))  # type: ignore[operator]


@pytest.mark.parametrize(("side", "expected"), [(890, 890), (900, 450), (1800, 450), (3700, 463)])
def test_large_photos_come_reduced(side: int, expected: int, tmp_path: Path) -> None:
    """A JPEG is halved while its short side stays above SHORT_SIDE; the result is the mean of its pixels."""
    rows, columns = np.indices((side, side + 16))
    photo = np.stack([rows * 255 // side, columns * 255 // (side + 16), 0 * rows + 90], axis=2).astype(
        np.uint8
    )
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    seen = rgb_of(tmp_path / "photo.jpg")
    assert min(seen.shape[:2]) == expected >= min(side, SHORT_SIDE)
    averaged = np.asarray(Image.fromarray(photo).resize(seen.shape[1::-1], Image.Resampling.BOX))
    np.testing.assert_allclose(seen, averaged, atol=4)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    """Clip art with alpha or a transparent palette entry stands on white, not on its hidden colour."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0] = (255, 0, 0, 255)
    rgba[1] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    seen = rgb_of(tmp_path / "alpha.png")
    assert seen[0, 0].tolist() == [255, 0, 0]
    assert seen[1, 0].tolist() == [127, 127, 127]
    assert seen[3, 3].tolist() == [255, 255, 255]

    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    palette.save(tmp_path / "palette.gif", transparency=0)
    assert rgb_of(tmp_path / "palette.gif").min() == 255


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    """65,535 is white and half of it is mid-grey; Pillow's own conversion would clip both to white."""
    path = tmp_path / "grey.png"
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(path)
    np.testing.assert_array_equal(rgb_of(path), [[[0] * 3, [100] * 3, [255] * 3]])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_greys_whose_zero_is_white_are_inverted(compression: Any, tmp_path: Path) -> None:
    """A TIFF may declare that 0 is white, at any depth: both depths give the same picture."""
    grey = np.arange(24 * 10, dtype=np.uint8).reshape(24, 10)
    for stored in (grey, grey.astype(np.uint16) * 257):
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", compression=compression)
        np.testing.assert_array_equal(rgb_of(tmp_path / "a.tif")[:, :, 0], 255 - grey)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_sixteen_bit_colours_are_right_or_refused(
    planes: Any, compression: Any, byteorder: Any, tmp_path: Path
) -> None:
    """Of uncompressed 16-bit planes Pillow takes the bytes for colours."""
    stored = np.random.default_rng(0).integers(0, 2**16, (24, 40, 3)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored if planes == "contig" else np.moveaxis(stored, 2, 0),
        photometric="rgb",
        planarconfig=planes,
        compression=compression,
        byteorder=byteorder,
    )
    if planes == "separate" and compression is None:
        with pytest.raises(SampleError, match="in separate planes are not read"):
            read("image", tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(rgb_of(tmp_path / "a.tif"), stored >> 8)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_tiff_with_a_thumbnail_is_its_picture(first: bool, bigtiff: bool, tmp_path: Path) -> None:
    """Reduced copies and masks of a TIFF are no pictures, wherever they lie."""
    beside = [(gradient(6, 10), 1), (gradient()[:, :, 0] > 40, 4)]
    pages = [*beside, (gradient(), 0)] if first else [(gradient(), 0), *beside]
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=bigtiff) as tiff:
        for page, kind in pages:
            tiff.write(page, subfiletype=kind, photometric="rgb" if page.ndim == 3 else "mask")
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.tif"), gradient())
    assert guess_modality(tmp_path / "a.tif") == "image"


def test_a_sequence_in_a_tiff_is_refused(tmp_path: Path) -> None:
    """Of several pictures in one TIFF none is taken in silence; nor is a thumbnail in place of a picture."""
    tifffile.imwrite(tmp_path / "two.tif", np.stack([gradient(), gradient()]), photometric="rgb")
    with pytest.raises(SampleError, match="holds 2 pictures; split the sequence"):
        read("image", tmp_path / "two.tif")
    with tifffile.TiffWriter(tmp_path / "thumbs.tif") as tiff:
        for _ in range(2):
            tiff.write(gradient(), subfiletype=1, photometric="rgb")
    with pytest.raises(SampleError, match="nothing but reduced copies"):
        read("image", tmp_path / "thumbs.tif")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    """A float picture has no defined white, so it is not guessed."""
    path = tmp_path / "heat.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(SampleError, match="no defined white"):
        read("image", path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_truncated_pictures_are_refused(ending: str, share: float, tmp_path: Path) -> None:
    """A file cut anywhere inside its pixels is refused, never filled up with grey."""
    path = tmp_path / f"cut.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SampleError, match="not a readable picture"):
        read("image", path)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A few bytes that declare 10 to 2,500 million pixels are refused before anything is unpacked."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (8_100, 10_000, 50_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        path = tmp_path / f"bomb{side}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with pytest.raises(SampleError, match="pixels"):
            read("image", path)


def test_postscript_is_never_started(tmp_path: Path) -> None:
    """EPS, which Pillow hands to Ghostscript, is not among the formats, whatever the file is called."""
    path = tmp_path / "photo.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(SampleError, match="cannot identify"):
        read("image", path)


def test_an_object_of_ours_is_not_shown(tmp_path: Path) -> None:
    """The reason of a TIFF of float colours is the same in every run, without an address in memory."""
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with pytest.raises(SampleError) as refused:
        read("image", tmp_path / "a.tif")
    assert "0x" not in str(refused.value)
    assert "cannot identify image file it" in str(refused.value)
