"""Which axis of a cloud or mesh points up. Here z does: every rendering and encoder takes it so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from data.modality import Modality
from data.readers.payload import AnyArray

Up = Literal["x", "y", "z"]

# What a format says (glTF), or what programs that write it do where it says nothing (OBJ); z for all others.
FORMAT_UP: dict[str, Up] = {".gltf": "y", ".glb": "y", ".obj": "y"}
_ROTATIONS = {
    "x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z": np.eye(3, dtype=np.int64),
}


@dataclass(frozen=True, slots=True)
class Turned:
    """A cloud or mesh of which something else than its format says which axis points up.

    Not a path: what opens it without asking fails, instead of reading it lying down.
    """

    path: Path
    up: Up

    def __str__(self) -> str:
        return str(self.path)


File: TypeAlias = Path | Turned


def format_up(path: Path) -> Up:
    """Which axis points up in files of this ending."""
    return FORMAT_UP.get(path.suffix.lower(), "z")


def up_override(modality: Modality, path: Path, up: Up | None) -> Up | None:
    """`up` where it changes how a sample is read; None for what has no such axis, or says the same itself."""
    return up if modality == "point" and up != format_up(path) else None


def turned(path: Path, up: Up | None) -> File:
    """The file, with what was told of it (`up_override`)."""
    return path if up is None else Turned(path, up)


def path_of(file: File) -> Path:
    """Where the file lies."""
    return file.path if isinstance(file, Turned) else file


def rotate_z_up(xyz_N3: AnyArray, up: Up) -> AnyArray:
    """Coordinates turned by quarter turns so that `up` becomes z; nothing is mirrored."""
    return xyz_N3 if up == "z" else xyz_N3 @ _ROTATIONS[up].T
