"""Files that are part of a sample, beside the one that its manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from data.errors import SampleError
from data.files import hash_file
from data.modality import Modality


def companions(modality: Modality, path: Path) -> list[Path]:
    """The other files that reading a sample opens: an OBJ's material libraries, a glTF's buffers."""
    lookup = _LOOKUP.get(path.suffix.lower()) if modality == "point" else None
    return [] if lookup is None else lookup(path)


def content_hash(modality: Modality, path: Path) -> str:
    """SHA-256 (hex) of a sample's file; where others belong to it, of all their hashes.

    Two samples of one hash read the same, in any folder.
    """
    own = hash_file(path)
    try:
        beside = companions(modality, path)
    except SampleError:  # a damaged file is turned away by its reader, with the reason
        return own
    if not beside:
        return own
    parts = [own, *(hash_file(each) for each in beside)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _of_obj(path: Path) -> list[Path]:
    from data.readers.obj import obj_libraries

    return obj_libraries(path)


def _of_gltf(path: Path) -> list[Path]:
    from data.readers.gltf import gltf_buffers

    return gltf_buffers(path)


_LOOKUP: dict[str, Callable[[Path], list[Path]]] = {".obj": _of_obj, ".gltf": _of_gltf}
