"""What of a sound file is sound: its whole length, part by part, or the reason why it is not whole.

Decoders stop where the first of several joined sounds ends, and read a cut file short, without a word. So the
file's own structure is looked at first. It costs a few reads: the sound itself is not touched.
"""

from __future__ import annotations

from pathlib import Path

from data.readers.chunks import AU_MAGICS, CHUNKED_MAGICS, au_parts, caf_parts, chunked_parts, w64_parts
from data.readers.flac import flac_parts
from data.readers.mpeg import find_sound, is_mpeg, mpeg_parts
from data.readers.nist import nist_parts
from data.readers.ogg import ogg_parts
from data.readers.stretch import Stretch

HEAD_BYTES = 16
WAV_HEAD_BYTES = 4096
MPEG_FORMATS = (0x50, 0x55)  # Layers I and II, Layer III


def sound_parts(path: Path) -> tuple[list[Stretch], bool]:
    """The sounds that lie one behind the other in a file, and whether they may be MPEG sounds (MP3).

    A file of one sound, and one of any format that is not known here, is one part. Sizes that a writer could
    not go back to fill in (it wrote to a pipe) are set right. Raises `SampleError` for a truncated file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = find_sound(file)  # behind ID3 tags
        file.seek(begin)
        head = file.read(HEAD_BYTES)
    if head[:4] in CHUNKED_MAGICS:
        return chunked_parts(path, size), _is_mpeg_in_wav(path)
    if head[:4] in AU_MAGICS:
        return au_parts(path, size), False
    if head[:4] == b"caff":
        return caf_parts(path, size), False
    if head[:4] == b"riff":
        return w64_parts(path, size), False
    if head[:4] == b"OggS":
        return ogg_parts(path, begin, size), False
    if head[:4] == b"fLaC":
        return flac_parts(path, begin, size), False
    if head[:7] == b"NIST_1A":
        return nist_parts(path, size), False
    if is_mpeg(path, begin):
        return mpeg_parts(path, begin, size), True
    # libsndfile goes by these two bytes, and finds out too late that it is something else.
    return [Stretch(path, 0, size)], begin > 0 or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _is_mpeg_in_wav(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(WAV_HEAD_BYTES)
    at = head.find(b"fmt ")
    return at >= 0 and int.from_bytes(head[at + 8 : at + 10], "little") in MPEG_FORMATS
