"""The look-up of readers, and what all of them do with files that are no samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import SampleError
from data.modality import EVENT_RECORDINGS, EXTENSIONS, MODALITIES
from data.readers import READERS, read
from data.readers.events.event import READERS as EVENT_READERS
from data.readers.payload import Text
from data.readers.points.point import READERS as POINT_READERS
from data.readers.text import MAX_BYTES

ENDINGS = sorted((modality, ending) for ending, modality in EXTENSIONS.items())
ENDINGS += [("event", ending) for ending in EVENT_RECORDINGS]
ENDINGS += [("point", ending) for ending in (".txt", ".pts")]


def test_every_modality_has_a_reader() -> None:
    """The look-up covers the seven modalities, and the point reader every ending guessed as points."""
    assert set(READERS) == set(MODALITIES)
    assert {ending for ending, modality in EXTENSIONS.items() if modality == "point"} <= set(POINT_READERS)


def test_every_event_format_is_guessed() -> None:
    """The endings that are guessed as events are those that the event reader reads as recordings."""
    guessed = {ending for ending, modality in EXTENSIONS.items() if modality == "event"}
    assert guessed | set(EVENT_RECORDINGS) == set(EVENT_READERS)


def test_looking_up_imports_no_decoder() -> None:
    """Importing the look-up loads none of the heavy libraries behind it."""
    heavy = ["PIL", "av", "torch", "trimesh", "tifffile", "soundfile", "plyfile"]
    code = f"import sys, data.readers; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("modality", "ending"), ENDINGS)
@pytest.mark.parametrize(
    "content", [b"", bytes(1003), np.random.default_rng(0).bytes(1003)], ids=["0", "z", "r"]
)
def test_garbage_is_refused(modality: str, ending: str, content: bytes, tmp_path: Path) -> None:
    """Empty files, zeros and random bytes under any ending give one clear line that begins with the file."""
    path = tmp_path / f"sample{ending}"
    path.write_bytes(content)
    with pytest.raises(SampleError) as refused:
        read(modality, path)  # type: ignore[arg-type]
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; " in message  # what is wrong; how to mend it
    assert "pickle" not in message.lower()


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_no_file_is_refused(modality: str, tmp_path: Path) -> None:
    """A missing file, a folder and a device are refused by name."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent.ply", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(SampleError, match=str(path)):
            read(modality, path)  # type: ignore[arg-type]


def test_text_is_read_without_its_mark_and_margins(tmp_path: Path) -> None:
    """UTF-8 comes through whole, less byte-order mark and outer white space."""
    path = tmp_path / "note.txt"
    path.write_bytes("\ufeff  ein hölzerner Würfel — 木\n\n".encode())
    assert read("text", path) == Text("ein hölzerner Würfel — 木")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Würfel".encode("latin-1"), "not UTF-8 at byte 1"),
        (b"a\0b", "NUL"),
        (b" \n\t ", "white space"),
        (b"a" * (MAX_BYTES + 1), "MiB"),
    ],
)
def test_bad_texts_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    """Other encodings, binary files, blank and oversize texts are refused with the reason."""
    path = tmp_path / "note.txt"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=reason):
        read("text", path)
