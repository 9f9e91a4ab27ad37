"""Companion files: further files that are part of a sample, such as the materials of a mesh."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from data.errors import SampleError
from data.files import hash_file
from data.modality import Modality
from data.readers.axes import File, Turned, path_of
from data.readers.lookup import COMPANIONS, find_function
from data.readers.payload import Text
from data.readers.points.point import MAX_BYTES
from data.readers.sandbox import pool as sandbox
from data.readers.untrusted import check_file


def companions(modality: Modality, path: Path) -> list[Path]:
    """The other files that reading a sample opens, existing or not: an OBJ's materials, a glTF's buffers."""
    if modality != "point" or path.suffix.lower() not in COMPANIONS:
        return []
    try:
        listed: Text = sandbox.decode("data.readers.companions:named_beside", path, {}, what="mesh")
    except SampleError:  # the reader rejects a damaged file, with the reason
        return []
    return [Path(each) for each in listed.text.split("\0") if each]


def named_beside(path: Path) -> Text:
    """The companions' paths, separated by NUL; runs in a decoder process."""
    check_file(path, max_bytes=MAX_BYTES)
    return Text("\0".join(map(str, find_function(COMPANIONS[path.suffix.lower()])(path))))


def content_hash(
    modality: Modality,
    file: File,
    *,
    hash_one: Callable[[Path], str] = hash_file,
    absent: Callable[[Path], object] = lambda path: None,
) -> str:
    """SHA-256 (hex) of a sample's content: its file, its companions, and its up axis where that is
    overridden.

    Two samples with the same hash and the same ending read the same, in any folder. `hash_one` hashes one
    file; `absent` is called with each missing companion, whose appearance would change the hash.
    """
    path = path_of(file)
    own = hash_one(path)
    parts = [own]
    for each in companions(modality, path):
        if each.is_file():
            parts.append(hash_one(each))
        else:
            absent(each)
    if isinstance(file, Turned):
        parts.append(f"up={file.up}")
    return own if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
