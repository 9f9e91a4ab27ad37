"""The look-up of readers, and what all of them do with files that are no samples."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import SampleError
from data.modality import EVENT_RECORDINGS, EXTENSIONS, MODALITIES
from data.readers import READERS, read
from data.readers.lookup import COMPANIONS, EVENT_FORMATS, POINT_FORMATS, find_function
from data.readers.payload import Text
from data.readers.text import MAX_BYTES

ENDINGS = sorted((modality, ending) for ending, modality in EXTENSIONS.items())
ENDINGS += [("event", ending) for ending in EVENT_RECORDINGS]
ENDINGS += [("point", ending) for ending in (".txt", ".pts")]
NAMED = sorted({*READERS.values(), *POINT_FORMATS.values(), *EVENT_FORMATS.values(), *COMPANIONS.values()})


def test_every_modality_and_ending_has_a_reader() -> None:
    """The tables cover the seven modalities, and every ending that implies points or events."""
    endings = {kind: {end for end, modality in EXTENSIONS.items() if modality == kind} for kind in MODALITIES}
    assert set(READERS) == set(MODALITIES)
    assert endings["point"] <= set(POINT_FORMATS)
    assert endings["event"] | set(EVENT_RECORDINGS) == set(EVENT_FORMATS)
    assert set(COMPANIONS) <= set(POINT_FORMATS)


@pytest.mark.parametrize("name", NAMED)
def test_every_reader_named_is_there(name: str) -> None:
    """Each "module:function" leads to a function that takes a path first."""
    assert next(iter(inspect.signature(find_function(name)).parameters)) == "path"


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
        (" \u200b\u2060\n".encode(), "invisible characters"),
        (b"a" * (MAX_BYTES + 1), "MiB"),
    ],
)
def test_bad_texts_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    """Other encodings, binary files, blank and oversize texts are refused with the reason."""
    path = tmp_path / "note.txt"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=reason):
        read("text", path)
