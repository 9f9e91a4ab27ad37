"""Strips metadata (texts, colour profiles, previews, camera notes) from picture files before decoding.

Metadata is often damaged or huge, and changes no pixel, but Pillow parses it and refuses the picture where it
fails. So the decoder gets only the parts that define pixels; the one useful item of the rest, the
orientation, is read here.

Sources: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, annex B), TIFF 6.0 and BigTIFF, Exif 2.32 (orientation),
WebP's RIFF container (RFC 9649), Adobe's XMP (tiff:Orientation).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray
from data.readers.stretch import Stretch
from data.tiff import MAGICS, MAX_DIRECTORIES, WHOLE_TYPES, Directory, first_directory, whole_pictures

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"tRNS",)  # the only ancillary chunk that defines pixels; critical ones begin with a capital
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT = 2**20  # bytes; longer texts are not searched for an orientation
JPEG_KEPT = (0xE0, 0xEE)  # JFIF, and Adobe's, which states the colour coding
# Tags that locate pixels and state their coding. 274, the orientation, is read here.
TIFF_KEPT = frozenset(
    (
        *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323),
        *(324, 325, 332, 338, 339, 347, *range(512, 522), *range(529, 533), 32995, 50674),
    )
)
ORIENTATION = 274
_XMP = re.compile(rb"tiff:Orientation(?:>|\s*=\s*[\"'])\s*([1-8])\s*[<\"']")


def pixels_of(path: Path) -> tuple[Path | BinaryIO, int]:
    """(what to decode, Exif orientation 1 … 8) of a picture file of any format.

    Files that cannot be parsed here are passed on unchanged: the decoder reports what is wrong.
    """
    with path.open("rb") as file:
        head = file.read(16)
        try:
            if head[:8] == PNG_MAGIC:
                return _png(path, file)
            if head[:2] == b"\xff\xd8":
                return _jpeg(path, file)
            if head[:4] in MAGICS:
                return _tiff(path, file)
            if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
                return path, _webp_orientation(file)
        except (struct.error, ValueError, IndexError, OverflowError):
            return path, 1
    return path, 1


def orientation_of(path: Path) -> int:
    """The Exif orientation of a picture file, 1 … 8."""
    source, orientation = pixels_of(path)
    if not isinstance(source, Path):
        source.close()
    return orientation


def upright(pixels: AnyArray, orientation: int) -> AnyArray:
    """Pixels [H, W, …] rotated and mirrored by an Exif orientation, contiguous in memory."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def exif_orientation(exif: bytes) -> int:
    """The orientation in the first directory of Exif data; 1 where it is missing or invalid."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        for at in range(first + 2, min(first + 2 + 12 * count, len(exif) - 11), 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, at)
            if tag == ORIENTATION:
                if kind not in WHOLE_TYPES or values != 1:
                    return 1
                (value,) = struct.unpack_from(order + WHOLE_TYPES[kind], exif, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the directory lies beyond the end
        return 1
    return 1


def _xmp_orientation(xmp: bytes) -> int:
    found = _XMP.search(xmp)
    return int(found[1]) if found else 1


def _png(path: Path, file: BinaryIO) -> tuple[Path | BinaryIO, int]:
    """The chunks that define pixels. The orientation in Exif takes precedence over that in XMP."""
    kept = [PNG_MAGIC]
    dropped = False
    by_exif, by_xmp = 1, 1
    depth, colours = 8, 0
    file.seek(len(PNG_MAGIC))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf" and length <= MAX_TEXT:
            body = file.read(length + 4)
            by_exif, dropped = exif_orientation(body), True
        elif name in PNG_TEXTS and length <= MAX_TEXT:
            keyword, _, text = file.read(length + 4)[:-4].partition(b"\0")
            dropped = True
            if keyword in {b"Raw profile type exif", b"Raw profile type APP1"} and by_exif == 1:
                by_exif = exif_orientation(_raw_profile(_plain(name, text)))
            elif keyword == b"XML:com.adobe.xmp":
                by_xmp = _xmp_orientation(_plain(name, text))
        elif name[0] & 32 and name not in PNG_KEPT:
            file.seek(length + 4, io.SEEK_CUR)
            dropped = True
        else:
            body = file.read(length + 4)
            if name == b"IHDR":
                depth, colours = body[8], body[9]
            elif name == b"tRNS" and (key := _pillow_key(body[:-4], depth, colours)) is not None:
                body, dropped = key + zlib.crc32(name + key).to_bytes(4, "big"), True
            kept += [head, body]
    orientation = by_exif if by_exif != 1 else by_xmp
    return (io.BytesIO(b"".join(kept)) if dropped else path), orientation


def _pillow_key(key: bytes, depth: int, colours: int) -> bytes | None:
    """The transparent colour of a PNG in Pillow's units, where these are not the file's; else None.

    Pillow compares a colour as the file has it with pixels that it has scaled to 8 bits: greys of 2 and 4
    bits are multiplied, of 16-bit colours the high byte is kept.
    """
    if colours == 0 and depth in {2, 4}:
        scaled = [int.from_bytes(key, "big") * 255 // (2**depth - 1)]
    elif colours == 2 and depth == 16:
        scaled = [key[at] for at in (0, 2, 4)]
    else:
        return None
    return b"".join(min(value, 255).to_bytes(2, "big") for value in scaled)


def _plain(name: bytes, text: bytes) -> bytes:
    """The text of a PNG text chunk behind its keyword, decompressed up to `MAX_TEXT`."""
    if name == b"tEXt":
        return text
    if name == b"zTXt":
        packed, text = True, text[1:]
    else:
        packed = text[:1] == b"\x01"
        text = text[2:].split(b"\0", 2)[2]  # behind language and translated keyword
    if not packed:
        return text
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """ImageMagick's encoding of Exif as text: a name, a length, then hexadecimal lines."""
    lines = text.strip().split(b"\n", 2)
    return bytes.fromhex(b"".join(lines[2].split()).decode("ascii")) if len(lines) == 3 else b""


def _jpeg(path: Path, file: BinaryIO) -> tuple[Path | BinaryIO, int]:
    """The file without application segments and comments."""
    kept = [b"\xff\xd8"]
    dropped = False
    by_exif, by_xmp = 1, 1
    file.seek(2)
    while True:
        start = file.tell()
        head = file.read(2)
        while head == b"\xff\xff":  # fill bytes
            head = b"\xff" + file.read(1)
        if len(head) < 2 or head[0] != 0xFF or head[1] in {0xD9, 0xDA} or 0xD0 <= head[1] <= 0xD8:
            file.seek(start)
            break
        size = file.read(2)
        length = int.from_bytes(size, "big")
        if length < 2:
            file.seek(start)
            break
        body = file.read(length - 2)
        if head[1] == 0xFE or (0xE1 <= head[1] <= 0xEF and head[1] not in JPEG_KEPT):
            dropped = True
            if head[1] == 0xE1 and body[:6] == b"Exif\0\0" and by_exif == 1:
                by_exif = exif_orientation(body)
            elif head[1] == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/"):
                by_xmp = _xmp_orientation(body)
        else:
            kept += [head, size, body]
    orientation = by_exif if by_exif != 1 else by_xmp
    if not dropped:
        return path, orientation
    return io.BytesIO(b"".join([*kept, file.read()])), orientation


def the_picture(path: Path, file: BinaryIO) -> Directory | None:
    """The directory of the only picture of a TIFF, behind thumbnails or before them; None for other files.

    Raises `SampleError` for a sequence, of which only one picture would be read, and where every picture is
    a reduced copy.
    """
    if first_directory(file) is None:
        return None
    found = whole_pictures(file)
    if len(found) >= MAX_DIRECTORIES:
        raise SampleError(f"{path}: {MAX_DIRECTORIES} pages or more, or a loop of pages; export one picture")
    if len(found) > 1:
        raise SampleError(f"{path}: holds {len(found)} pictures; split the sequence into one file each")
    if not found:
        raise SampleError(f"{path}: holds nothing but reduced copies of a picture; export the picture")
    return found[0]


def _tiff(path: Path, file: BinaryIO) -> tuple[Path | BinaryIO, int]:
    """The file with only those tags that define pixels in the picture's directory, and no further
    directories."""
    found = the_picture(path, file)
    if found is None:
        return path, 1
    orientation = 1
    for entry in found.entries:
        if entry.tag == ORIENTATION and entry.count == 1 and entry.value is not None:
            orientation = entry.value if 1 <= entry.value <= 8 else 1
    kept = [entry.raw for entry in found.entries if entry.tag in TIFF_KEPT]
    end = bytes(struct.calcsize(found.offset_form))
    patches = {found.at: struct.pack(found.count_form, len(kept)) + b"".join(kept) + end}
    if found.number:  # the header leads to it, past the thumbnails before it
        patches[8 if "Q" in found.offset_form else 4] = struct.pack(found.offset_form, found.at)
    stretch = Stretch(path, 0, path.stat().st_size, patches)
    return stretch.open(), orientation  # type: ignore[return-value]


def _webp_orientation(file: BinaryIO) -> int:
    by_exif, by_xmp = 1, 1
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name in {b"EXIF", b"XMP "} and length <= MAX_TEXT:
            body = file.read(length)
            if name == b"EXIF":
                by_exif = exif_orientation(body)
            else:
                by_xmp = _xmp_orientation(body)
        else:
            file.seek(length, io.SEEK_CUR)
        file.seek(length % 2, io.SEEK_CUR)
    return by_exif if by_exif != 1 else by_xmp
