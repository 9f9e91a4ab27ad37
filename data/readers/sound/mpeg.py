"""MPEG sounds (MP3) frame by frame: splits concatenated files, and checks the number of frames.

An MP3 has no container: frames follow each other, each with its own header, tags lie between them, and the
first may be an information frame (Xing, Info, VBRI) with the number of frames. MP3s are often concatenated;
a decoder that trusts the first information frame stops where the second file begins.

Sources: ISO/IEC 11172-3 section 2.4.1 and 13818-3 (headers), id3.org (tags), the LAME tag's specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data.errors import SampleError
from data.readers.stretch import Stretch

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_V1 = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_V2 = {
    3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
LOOK_AHEAD = 2**16  # bytes of other content allowed before the first frame
MOST_BETWEEN = 8192  # bytes of other content allowed between frames: remains of one or two cut frames
BLOCK_BYTES = 2**22
TAG_HEAD_BYTES = 16
SHORT_BY = 1  # some information frames count themselves


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame header."""

    length: int  # bytes
    samples: int
    rate: int
    mono: bool
    version: int
    layer: int

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """What is constant within one sound."""
        return self.version, self.layer, self.rate, self.mono


def find_sound(file: BinaryIO) -> int:
    """The offset behind the ID3v2 tags at the beginning."""
    at = 0
    while True:
        file.seek(at)
        length = _tag_length(file.read(TAG_HEAD_BYTES))
        if not length:
            return at
        at += length


def is_mpeg(path: Path, begin: int) -> bool:
    """Whether two consecutive MPEG frames begin at `begin`, after a few zeros at most."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(LOOK_AHEAD)
    at = len(data) - len(data.lstrip(b"\0"))
    frame = frame_at(data, at)
    if frame is None:
        # After an ID3 tag it must be an MP3, perhaps with garbage first; without one it may be any format.
        return bool(begin) and _next_frame(data, 0) is not None
    return at + frame.length >= len(data) or frame_at(data, at + frame.length) is not None


def frame_at(data: bytes, at: int) -> Frame | None:
    """The frame header at an offset, or None; frames of "free" bit rate are not supported."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate_code, speed_code = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or not 0 < rate_code < 15 or speed_code == 3:
        return None
    kilobits = (_V1 if version == 3 else _V2)[layer][rate_code - 1]
    rate, padding = RATES[version][speed_code], head[2] >> 1 & 1
    if layer == 3:
        samples, length = 384, (12_000 * kilobits // rate + padding) * 4
    else:
        samples = 576 if layer == 1 and version != 3 else 1152
        length = samples // 8 * 1000 * kilobits // rate + padding
    return Frame(length, samples, rate, head[3] >> 6 == 3, version, layer)


@dataclass
class _Sound:
    """One of the concatenated sounds, while the file is scanned."""

    start: int
    kind: tuple[int, int, int, bool]
    end: int = 0  # of its last frame
    frames: int = 0
    counted: int | None = None  # by its information frame


def mpeg_parts(path: Path, begin: int, size: int) -> list[Stretch]:
    """The concatenated sounds of an MP3: split at information frames, at tags, and where the kind changes.

    Raises `SampleError` for fewer frames than declared, and for other content between frames.
    """
    sounds: list[_Sound] = []
    with path.open("rb") as file:
        data = _Window(file, size)
        at, fresh = begin, True
        while at < size - 4:
            tag = _tag_length(data.at(at, TAG_HEAD_BYTES))
            if tag:
                at, fresh = at + tag, True
                continue
            frame = frame_at(data.at(at, 4), 0)
            if frame is None or (not fresh and not _fits(data, at, frame, size)):
                found = _behind(data, at, size)
                rest = (size if found is None else found) - at
                if sounds and rest > MOST_BETWEEN and not (found is None and data.is_blank(at)):
                    raise SampleError(
                        f"{path}: damaged, {rest:,} bytes from byte {at:,} on are not MPEG frames; "
                        "fetch it again"
                    )
                if found is None:
                    break
                at = found
                continue
            counted = _counted(data.at(at, min(frame.length, 200)), frame)
            if not sounds or counted is not None or frame.kind != sounds[-1].kind:
                sounds.append(_Sound(at, frame.kind, counted=counted))
            sounds[-1].frames += (
                counted is None and at + frame.length <= size
            )  # a truncated last frame does not count
            at, fresh = at + frame.length, False
            sounds[-1].end = min(at, size)
    for sound in sounds:
        if sound.counted and sound.frames < sound.counted - SHORT_BY:
            raise SampleError(
                f"{path}: truncated, {sound.frames:,} of {sound.counted:,} frames are there; fetch it again"
            )
    heard = [sound for sound in sounds if sound.frames]
    # Frames only: FFmpeg would parse tags as frames, or add silence for them.
    return [Stretch(path, sound.start, sound.end) for sound in heard] or [Stretch(path, 0, size)]


class _Window:
    """Random access to a file of any size, one block in memory at a time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._start, self._block = 0, b""

    def at(self, place: int, count: int) -> bytes:
        inside = place - self._start
        if not inside >= 0 or inside + count > len(self._block):
            self._file.seek(place)
            self._start, self._block = place, self._file.read(max(count, BLOCK_BYTES))
            inside = 0
        return self._block[inside : inside + count]

    def is_blank(self, place: int) -> bool:
        """Whether only zeros follow, to the end."""
        self._file.seek(place)
        return not self._file.read().strip(b"\0")


def _fits(data: _Window, at: int, frame: Frame, size: int) -> bool:
    """Whether a frame, a tag or the end follows: audio data sometimes looks like a frame header."""
    behind = at + frame.length
    if behind >= size - 4:
        return True
    head = data.at(behind, TAG_HEAD_BYTES)
    return frame_at(head, 0) is not None or bool(_tag_length(head)) or head[:4] == bytes(4)


def _behind(data: _Window, at: int, size: int) -> int | None:
    """The offset of the next frame that is followed by one of the same kind; None if there is none."""
    place = at + 1
    while place < size - 4:
        block = data.at(place, LOOK_AHEAD)
        inside = 0
        while (inside := block.find(b"\xff", inside)) >= 0:
            here = place + inside
            frame = frame_at(data.at(here, 4), 0)
            if frame is not None and here + frame.length < size - 4:
                follower = frame_at(data.at(here + frame.length, 4), 0)
                if follower is not None and follower.kind == frame.kind:
                    return here
            inside += 1
        place += max(1, len(block))
    return None


def _next_frame(data: bytes, at: int) -> int | None:
    while (at := data.find(b"\xff", at)) >= 0:
        frame = frame_at(data, at)
        if frame is not None and frame_at(data, at + frame.length) is not None:
            return at
        at += 1
    return None


def _counted(body: bytes, frame: Frame) -> int | None:
    """The number of frames in an information frame (0 if not stated); None for other frames."""
    by_kind = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}
    side = by_kind[frame.version == 3, frame.mono]
    for skip in (side, side + 2):  # a checksum of two bytes may come first
        mark = body[4 + skip : 8 + skip]
        if mark in {b"Xing", b"Info"}:
            has_count = body[11 + skip : 12 + skip] and body[11 + skip] & 1
            return int.from_bytes(body[12 + skip : 16 + skip], "big") if has_count else 0
    if body[36:40] == b"VBRI":
        return int.from_bytes(body[50:54], "big")
    return None


def _tag_length(head: bytes) -> int:
    """The length of the ID3v2, ID3v1 or APE tag that begins with these bytes; 0 if there is none."""
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + length + (10 if head[5] & 16 else 0)
    if head[:8] == b"APETAGEX" and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0
