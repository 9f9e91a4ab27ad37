"""Pictures with odd, huge and damaged metadata are pictures; which side is up is read where it is said."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.errors import SampleError
from data.readers import read
from data.readers.payload import Bytes, Picture, ThermalPicture
from data.readers.pictures.picture_file import exif_orientation, upright

H, W = 24, 40


def photo() -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)


def seen(path: Path) -> Bytes:
    payload = read("image", path)
    assert isinstance(payload, Picture)
    return payload.rgb_HW3


def encoded(form: str, **how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, form, **how)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(chunks: bytes, *, last: bool = False) -> bytes:
    """A PNG with further chunks before its pixels, or behind them."""
    data = encoded("PNG")
    at = data.index(b"IEND") - 4 if last else 33
    return data[:at] + chunks + data[at:]


BIG = b"a {} of the graph, " * 150_000  # 2.8 MB
XMP_6 = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def exif(orientation: int = 6, kind: int = 3, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    entry = struct.pack(order + "HHI", 0x112, kind, 1) + value
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["zTXt", "iTXt", "tEXt", "many", "damaged"])
def test_texts_of_a_png_carry_no_pixels(name: str, last: bool, tmp_path: Path) -> None:
    """Workflows of megabytes, a thousand texts, and texts that do not unpack leave the picture as it is."""
    packed = zlib.compress(BIG)
    chunks = {
        "zTXt": png_chunk(b"zTXt", b"workflow\0\0" + packed),
        "iTXt": png_chunk(b"iTXt", b"workflow\0\x01\0\0\0" + packed),
        "tEXt": png_chunk(b"tEXt", b"workflow\0" + BIG),
        "many": b"".join(
            png_chunk(b"zTXt", b"w%d\0\0" % n + zlib.compress(bytes(900_000))) for n in range(80)
        ),
        "damaged": png_chunk(b"zTXt", b"w\0\0no zlib")
        + png_chunk(b"iCCP", b"icc\0\0no zlib")
        + png_chunk(b"pHYs", b""),
    }[name]
    (tmp_path / "a.png").write_bytes(png_with(chunks, last=last))
    np.testing.assert_array_equal(seen(tmp_path / "a.png"), photo())


def raw_profile(data: bytes) -> bytes:
    return b"\nexif\n%8d\n" % len(data) + data.hex().encode() + b"\n"


@pytest.mark.parametrize(
    "chunks",
    [
        png_chunk(b"eXIf", exif()),
        png_chunk(b"eXIf", exif(kind=4, order=">")),
        png_chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(b"Exif\0\0" + exif())),
        png_chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + exif()))),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_6),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(XMP_6)),
    ],
)
def test_a_png_is_turned_however_it_says_so(chunks: bytes, tmp_path: Path) -> None:
    """Exif in its own chunk or in a text (ImageMagick), and XMP: 6 is a quarter turn clockwise."""
    (tmp_path / "a.png").write_bytes(png_with(chunks))
    np.testing.assert_array_equal(seen(tmp_path / "a.png"), np.rot90(photo(), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_turn_as_pillow_turns_them(orientation: int) -> None:
    """All eight orientations, against Pillow's own transposition."""
    methods = Image.Transpose
    by_pillow = {
        2: methods.FLIP_LEFT_RIGHT,
        3: methods.ROTATE_180,
        4: methods.FLIP_TOP_BOTTOM,
        5: methods.TRANSPOSE,
        6: methods.ROTATE_270,
        7: methods.TRANSVERSE,
        8: methods.ROTATE_90,
    }
    picture = Image.fromarray(photo())
    if orientation in by_pillow:
        picture = picture.transpose(by_pillow[orientation])
    np.testing.assert_array_equal(upright(photo(), orientation), np.asarray(picture))


@pytest.mark.parametrize("colours", [0, 2])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_colour_of_a_png_is_white(colours: int, depth: int, tmp_path: Path) -> None:
    """Of greys and colours of every depth, the one that the file calls transparent shows the background."""
    if colours == 2 and depth < 8:
        return  # PNG has no such colours
    most, channels = 2**depth - 1, 3 if colours else 1
    values = np.array([[0, most], [most // 2, most]], np.uint16)
    pixels = np.repeat(values[:, :, None], channels, axis=2)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    elif depth == 8:
        rows = [row.astype(np.uint8).tobytes() for row in pixels]
    else:
        rows = [bytes([(row[0, 0] << depth | row[1, 0]) << (8 - 2 * depth)]) for row in pixels]
    head = struct.pack(">IIBBBBB", 2, 2, depth, colours, 0, 0, 0)
    for key in (0, most // 2, most):
        chunks = [
            png_chunk(b"IHDR", head),
            png_chunk(b"tRNS", struct.pack(">H", key) * channels),
            png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
            png_chunk(b"IEND", b""),
        ]
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        expected = np.where(values == key, 255, np.rint(values / most * 255))
        np.testing.assert_allclose(seen(tmp_path / "a.png")[:, :, 0], expected, atol=1.0)


def odd_exifs() -> Iterator[bytes]:
    """Exif whose entries are of every type, some of them impossible; half say orientation 6 besides."""
    tags = [
        0x100,
        0x10E,
        0x10F,
        0x112,
        0x11A,
        0x11B,
        0x128,
        0x132,
        0x201,
        0x213,
        0x8298,
        0x8769,
        0x8825,
        0x9000,
    ]
    tags += [0x9003, 0x927C, 0x9286, 0xA002, 0xA005, 0xA20E, 0xC4A5, 0xFFFF]
    for tag in tags:
        for kind in [*range(16), 129, 65535]:
            for count, value in ((1, 0), (1, 6), (0, 0), (2, 2**31), (2**32 - 1, 9)):
                entry = struct.pack("<HHII", tag, kind, count, value)
                yield b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 2**31)
    yield from (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"XX*\0" + bytes(40))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_photo_with_odd_exif_is_a_photo(form: str, tmp_path: Path) -> None:
    """Tags × types, wrong counts, zero denominators, offsets beyond the end: pixels are all that counts."""
    path = tmp_path / "a.bin"
    path.write_bytes(encoded(form))
    plain = seen(path)
    for data in odd_exifs():
        path.write_bytes(encoded(form, exif=b"Exif\0\0" + data if form == "JPEG" else data))
        turned = upright(plain, exif_orientation(data))
        np.testing.assert_array_equal(seen(path), turned, err_msg=repr(data))


@pytest.mark.parametrize(("kind", "count", "value", "expected"), [
    (3, 1, 6, 6), (4, 1, 8, 8), (1, 1, 3, 3), (3, 1, 0, 1), (3, 1, 9, 1), (3, 1, 65535, 1), (2, 2, 0x36, 1),
    (11, 1, 0x40C00000, 1), (5, 1, 0, 1), (3, 2, 6, 1), (3, 0, 6, 1), (7, 1, 6, 1),
])  # fmt: skip
def test_which_orientations_count(kind: int, count: int, value: int, expected: int) -> None:
    """One whole number from 1 to 8; a text, a float, a fraction, a list or another number turns nothing."""
    data = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x112, kind, count, value) + bytes(4)
    assert exif_orientation(data) == expected


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "segments",
    [
        segment(0xE2, b"MPF\0" + b"II*\0" + b"\xff" * 60),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x03\0" + struct.pack("<HHII", 0xB001, 4, 1, 2) + bytes(30)),
        segment(0xE2, b"ICC_PROFILE\0\x01\x02" + b"\xff" * 60),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x04\0\0"),
        segment(0xE1, b"Exif\0\0" + b"\xff" * 9) + segment(0xE1, b"Exif\0\0"),
        segment(0xFE, b"\xff" * 5000),
        segment(0xEF, b"") + b"\xff\xff\xff" + segment(0xE5, b"HPSC"),
    ],
)
def test_damaged_segments_of_a_jpeg_change_nothing(segments: bytes, tmp_path: Path) -> None:
    """Previews (MPF), colour profiles, Photoshop's notes and comments may be anything at all."""
    data = encoded("JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    plain = seen(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(data[:2] + segments + data[2:])
    np.testing.assert_array_equal(seen(tmp_path / "a.jpg"), plain)


def test_a_jpeg_is_turned_by_xmp_where_exif_is_silent(tmp_path: Path) -> None:
    """Lightroom writes the orientation to XMP alone; where both speak, Exif counts."""
    data = encoded("JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    plain = seen(tmp_path / "a.jpg")
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP_6)
    (tmp_path / "a.jpg").write_bytes(data[:2] + xmp + data[2:])
    np.testing.assert_array_equal(seen(tmp_path / "a.jpg"), np.rot90(plain, -1))
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment(0xE1, b"Exif\0\0" + exif(3)) + xmp + data[2:])
    np.testing.assert_array_equal(seen(tmp_path / "a.jpg"), np.rot90(plain, 2))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_with_odd_tags_is_a_picture(big: bool, compression: str | None, tmp_path: Path) -> None:
    """Tags × types beside the pixels', in TIFF and BigTIFF; tag 274 turns it where it makes sense."""
    path = tmp_path / "a.tif"
    for number, tag in enumerate(
        (270, 271, 282, 296, 305, 306, 700, 33432, 34377, 34665, 34675, 34853, 50000)
    ):
        for kind, value in (
            (2, "odd"),
            (3, 7),
            (4, 2**31),
            (5, (1, 0)),
            (7, b"\xff\xff"),
            (10, (-1, 0)),
            (11, 1e9),
        ):
            count = len(value) if isinstance(value, bytes) else 1  # type: ignore[arg-type]
            extra = [(tag, kind, 0 if kind == 2 else count, value, False)]
            if number % 2:
                extra.append((274, 3, 1, 6, False))
            tifffile.imwrite(
                path,
                photo(),
                bigtiff=big,
                compression=compression,
                photometric="rgb",
                extratags=extra,
                metadata=None,
            )
            expected = np.rot90(photo(), -1) if number % 2 else photo()
            np.testing.assert_array_equal(seen(path), expected, err_msg=f"{tag} {kind}")


def test_thermal_pictures_are_upright_too(tmp_path: Path) -> None:
    """The orientation tag of a thermal TIFF counts, packed or not."""
    counts = np.random.default_rng(0).integers(0, 2**16, (H, W)).astype(np.uint16)
    for compression in (None, "zlib"):
        tifffile.imwrite(
            tmp_path / "a.tif",
            counts,
            compression=compression,
            extratags=[(274, 3, 1, 8, False)],
            metadata=None,
        )
        payload = read("thermal", tmp_path / "a.tif")
        assert isinstance(payload, ThermalPicture)
        np.testing.assert_array_equal(payload.values_HW, np.rot90(counts))


@pytest.mark.parametrize("ending", ["pgm", "ppm", "pnm"])
@pytest.mark.parametrize("maximum", [65535, 4095, 1023])
def test_sixteen_bit_portable_greys_are_read(ending: str, maximum: int, tmp_path: Path) -> None:
    """A PGM of 10, 12 or 16 bits under any of its endings is scaled to 8 by its own maximum."""
    values = np.random.default_rng(0).integers(0, maximum + 1, (H, W))
    head = f"P5\n# a camera\n{W} {H}\n{maximum}\n".encode()
    (tmp_path / f"a.{ending}").write_bytes(head + values.astype(">u2").tobytes())
    rgb = seen(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(rgb[:, :, 0], values / maximum * 255, atol=0.51)
    assert (rgb == rgb[:, :, :1]).all()


def test_sixteen_bit_colours_keep_their_high_byte(tmp_path: Path) -> None:
    """PPM, PNG and TIFF of 16-bit colours: within one step of 255 of the same picture."""
    values = np.random.default_rng(0).integers(0, 65536, (H, W, 3)).astype(np.uint16)
    (tmp_path / "a.ppm").write_bytes(f"P6 {W} {H} 65535\n".encode() + values.astype(">u2").tobytes())
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0))
    body = head + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    for name in ("a.ppm", "a.png", "a.tif"):
        np.testing.assert_allclose(seen(tmp_path / name), values / 257, atol=1.0, err_msg=name)


def test_a_cut_png_stays_refused_without_its_texts(tmp_path: Path) -> None:
    """Leaving texts out does not turn a truncated file into a whole one."""
    data = png_with(png_chunk(b"tEXt", b"a\0b"))
    for share in (0.3, 0.7, 0.95):
        (tmp_path / "a.png").write_bytes(data[: round(share * len(data))])
        with pytest.raises(SampleError, match=r"a\.png"):
            read("image", tmp_path / "a.png")
