"""Whether a sound file is whole: libsndfile reads a truncated WAV or Ogg short, without a word."""

from __future__ import annotations

from pathlib import Path

from data.errors import SampleError

# A WAV writer that cannot seek back (a pipe) leaves one of these as the size of the data.
UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)

OGG_HEAD_BYTES = 27  # of a page, before its segment table (RFC 3533, section 6)
OGG_MAX_PAGE_BYTES = OGG_HEAD_BYTES + 255 + 255 * 255


def check_whole(path: Path) -> None:
    """Raise `SampleError` for a RIFF WAV or an Ogg file that ends early; other formats pass.

    An Ogg file cut between two pages passes too: live recordings end like that. MP3 frames stand alone, so a
    cut MP3 is just a shorter one.
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        _check_wav(path)
    elif head[:4] == b"OggS":
        _check_ogg(path)


def _check_wav(path: Path) -> None:
    """The data chunk must not declare more bytes than follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            declared, here = int.from_bytes(head[4:], "little"), size - file.tell()
            if head[:4] == b"data":
                if declared > here and declared not in UNKNOWN_SIZES:
                    raise SampleError(
                        f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again"
                    )
                return
            file.seek(declared + declared % 2, 1)  # chunks are padded to even sizes


def _check_ogg(path: Path) -> None:
    """The last page must be as long as its segment table says."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_MAX_PAGE_BYTES))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[OGG_HEAD_BYTES - 1] if len(page) >= OGG_HEAD_BYTES else 1
    declared = OGG_HEAD_BYTES + segments + sum(page[OGG_HEAD_BYTES : OGG_HEAD_BYTES + segments])
    if len(page) < declared:
        raise SampleError(f"{path}: truncated within its last page; fetch it again")
