"""Chunk-based sound files: WAV (RIFF, RIFX, RF64, BW64), Wave64, AIFF, AIFF-C, 8SVX and CAF; and AU.

A writer that cannot seek back (it writes to a pipe) leaves a size that means "unknown": 0, or a number near
2^31 or 2^32. SoX writes 0x7ffff000, arecord 0x7fffff00 or 0x80000000, FFmpeg 0xffffffff, GStreamer 0; some
subtract the header's size. Files that large are not read (`data.readers.sound.audio.MAX_BYTES`), so such a
number is never a real size.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306
(RF64), ITU-R BS.2088 (BW64), Sony's Wave64, Apple's "Audio Interchange File Format" 1.3 and "Core Audio
Format", Sun's AU header.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from data.errors import SampleError
from data.readers.stretch import Stretch

CHUNKED_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
AU_MAGICS = (b".snd", b"dns.")
FORMS = (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")
TAGS = (b"ID3", b"TAG", b"APE")
SOUND_CHUNKS = (b"data", b"SSND", b"BODY")

# Up to this many unexplained bytes at the end are ignored (tags, padding to a disk's blocks).
SMALL_REST = 4096

Order = Literal["little", "big"]


def is_unknown(size: int, bits: int = 32) -> bool:
    """Whether a size means "unknown": 0, or near the largest signed or unsigned number."""
    near = 2 ** (bits - 8)
    return size == 0 or size >= 2**bits - near or abs(size - 2 ** (bits - 1)) <= near


def chunked_parts(path: Path, size: int) -> list[Stretch]:
    """The sounds of a RIFF or IFF file, several if concatenated. Raises `SampleError` for a truncated one."""
    parts: list[Stretch] = []
    start: int | None = 0
    with path.open("rb") as file:
        while start is not None:
            part, start = _one_chunked(file, path, start, size)
            parts.append(part)
    return parts


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    at: int  # of its head, in the file
    size: int  # of its body, as declared

    @property
    def body(self) -> int:
        return self.at + 8


def _one_chunked(file: BinaryIO, path: Path, start: int, size: int) -> tuple[Stretch, int | None]:
    """The sound that begins at `start`, and the offset of the next one, or None."""
    file.seek(start)
    head = file.read(12)
    order: Order = "big" if head[:4] in {b"RIFX", b"FORM"} else "little"
    if head[8:12] not in FORMS:
        return Stretch(path, start, size), None  # a video or a picture: other readers handle it
    seen: dict[bytes, _Chunk] = {}
    at = start + 12
    while (chunk := _chunk_at(file, at, order)) is not None:
        seen.setdefault(chunk.name, chunk)
        if chunk.name in SOUND_CHUNKS:
            declared_form = int.from_bytes(head[4:8], order)
            return _with_sound(file, path, seen, chunk, order, (start, size, declared_form))
        at = _next_chunk(file, chunk, order)
    return Stretch(path, start, size), None


def _with_sound(
    file: BinaryIO,
    path: Path,
    seen: dict[bytes, _Chunk],
    sound: _Chunk,
    order: Order,
    bounds: tuple[int, int, int],
) -> tuple[Stretch, int | None]:
    start, size, declared_form = bounds
    here, declared = size - sound.body, sound.size
    bits = 32
    if b"ds64" in seen and declared == 2**32 - 1:  # RF64 stores the size in an earlier chunk
        file.seek(seen[b"ds64"].body + 8)
        declared, bits = int.from_bytes(file.read(8), "little"), 64
    ends_with_form = start + 8 + declared_form + declared_form % 2 >= size > start + 8
    empty = declared == 0 and sound.size == 0 and (here == 0 or (ends_with_form and declared_form > 0))
    if not empty and is_unknown(declared, bits) and not (declared and declared <= here):
        return Stretch(path, start, size, _known_size(file, seen, sound, here, order)), None
    if declared > here:
        raise SampleError(f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again")
    file.seek(sound.body)
    if (
        file.read(4) == b"OggS" and sound.name == b"data"
    ):  # a whole Ogg in a WAV, as encoders of 2001 wrote it
        return Stretch(path, sound.body, sound.body + declared), None
    return _until_next(file, path, start, sound.body + declared, size, order)


def _known_size(
    file: BinaryIO, seen: dict[bytes, _Chunk], sound: _Chunk, here: int, order: Order
) -> dict[int, bytes]:
    """Patches that put the real size into the header."""
    patches = {sound.at + 4: here.to_bytes(4, order)}
    if b"ds64" in seen:
        patches[seen[b"ds64"].body + 8] = here.to_bytes(8, "little")
    if b"COMM" in seen:  # AIFF counts frames as well
        at = seen[b"COMM"].body
        file.seek(at)
        common = file.read(8)
        channels, depth = int.from_bytes(common[:2], "big"), int.from_bytes(common[6:8], "big")
        frame = max(1, channels * -(-depth // 8))
        patches[at + 2] = ((here - 8) // frame).to_bytes(4, "big")
    return patches


def _until_next(
    file: BinaryIO, path: Path, start: int, end: int, size: int, order: Order
) -> tuple[Stretch, int | None]:
    """Skip the chunks behind the sound, to where the file ends or another sound begins."""
    at = _aligned(file, end, end)
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        if head[:4] in CHUNKED_MAGICS and head[8:12] in FORMS:
            return Stretch(path, start, at), at
        if head[:3] in TAGS:
            return Stretch(path, start, size), None
        chunk = _chunk_at(file, at, order)
        if chunk is None or chunk.body + chunk.size > size:
            break
        at = _next_chunk(file, chunk, order)
    if size - at > SMALL_REST and _is_filled(file, at):
        raise SampleError(
            f"{path}: {size - at:,} bytes behind its sound are not declared in its header; export it again"
        )
    return Stretch(path, start, size), None


def _is_filled(file: BinaryIO, at: int) -> bool:
    """Whether there is a byte other than zero from `at` on."""
    file.seek(at)
    while block := file.read(2**20):
        if block.count(0) != len(block):
            return True
    return False


def _chunk_at(file: BinaryIO, at: int, order: Order) -> _Chunk | None:
    file.seek(at)
    head = file.read(8)
    return _Chunk(head[:4], at, int.from_bytes(head[4:], order)) if len(head) == 8 else None


def _next_chunk(file: BinaryIO, chunk: _Chunk, order: Order) -> int:
    return _aligned(file, chunk.body + chunk.size, chunk.at)


def _aligned(file: BinaryIO, end: int, base: int) -> int:
    """The offset of the next chunk: chunks are padded to even sizes, but some writers omit the pad."""
    if (end - base) % 2 == 0:
        return end
    file.seek(end)
    behind = file.read(9)
    forgotten = behind[:1] != b"\0" and _is_name(behind[:4]) and not _is_name(behind[1:5])
    return end if forgotten else end + 1


def _is_name(letters: bytes) -> bool:
    return len(letters) == 4 and all(32 <= letter < 127 for letter in letters)


def w64_parts(path: Path, size: int) -> list[Stretch]:
    """Sony's Wave64, several if concatenated: names are GUIDs; sizes have 64 bits and count the header.

    libsndfile reads to the end of the file, whatever the size says, so a part ends with its sound.
    """
    parts: list[Stretch] = []
    start, at = 0, 40
    with path.open("rb") as file:
        while True:
            file.seek(at)
            head = file.read(24)
            if len(head) < 24:
                return [*parts, Stretch(path, start, size)]
            declared, here = int.from_bytes(head[16:24], "little"), size - at
            if head[:4] != b"data":
                at += max(24, declared + -declared % 8)
                continue
            if declared <= 24 < here or is_unknown(declared, 64):
                return [*parts, Stretch(path, start, size, {at + 16: here.to_bytes(8, "little")})]
            if declared > here:
                raise SampleError(
                    f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again"
                )
            end = at + declared
            file.seek(end + -declared % 8)
            if file.read(4) != b"riff":
                return [*parts, Stretch(path, start, end)]
            parts.append(Stretch(path, start, end))
            start = end + -declared % 8
            at = start + 40


def caf_parts(path: Path, size: int) -> list[Stretch]:
    """Apple's CAF, several if concatenated; a size of −1 means "to the end of the file"."""
    parts: list[Stretch] = []
    start, at = 0, 8
    with path.open("rb") as file:
        while True:
            file.seek(at)
            head = file.read(12)
            if len(head) < 12:
                return [*parts, Stretch(path, start, size)]
            if head[:4] == b"caff":
                parts.append(Stretch(path, start, at))
                start, at = at, at + 8
                continue
            declared, here = int.from_bytes(head[4:], "big", signed=True), size - at - 12
            if head[:4] == b"data" and declared > here:
                raise SampleError(
                    f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again"
                )
            if head[:4] == b"data" and declared < 0:
                return [*parts, Stretch(path, start, size, {at + 4: here.to_bytes(8, "big")})]
            at += 12 + max(0, declared)


def au_parts(path: Path, size: int) -> list[Stretch]:
    """Sun's AU, several if concatenated; a size of 0xffffffff means "to the end of the file"."""
    parts: list[Stretch] = []
    start = 0
    with path.open("rb") as file:
        while True:
            file.seek(start)
            head = file.read(12)
            order: Order = "big" if head[:4] == b".snd" else "little"
            offset, declared = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
            here = size - start - offset
            if is_unknown(declared):
                return [*parts, Stretch(path, start, size, {start + 8: max(0, here).to_bytes(4, order)})]
            if declared > here:
                raise SampleError(
                    f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again"
                )
            end = start + offset + declared
            file.seek(end)
            if file.read(4) not in AU_MAGICS:
                return [*parts, Stretch(path, start, size)]
            parts.append(Stretch(path, start, end))
            start = end
