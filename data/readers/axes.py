"""Which axis of a cloud or mesh points up. Readers rotate it to z, as all renderings and encoders expect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from data.modality import Modality
from data.readers.payload import AnyArray

Up = Literal["x", "y", "z"]

# As the format defines it (glTF), or as most programs write it (OBJ); z for all others.
FORMAT_UP: dict[str, Up] = {".gltf": "y", ".glb": "y", ".obj": "y"}
_ROTATIONS = {
    "x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z": np.eye(3, dtype=np.int64),
}


@dataclass(frozen=True, slots=True)
class Turned:
    """A cloud or mesh whose up axis is set by the project or manifest, not by its format.

    Deliberately not a path: code that would open it without rotating it fails.
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
    """`up` if it changes how a sample is read; None for other modalities, and for the format's own axis."""
    return up if modality == "point" and up != format_up(path) else None


def turned(path: Path, up: Up | None) -> File:
    """The file with its up axis, where that is overridden (`up_override`)."""
    return path if up is None else Turned(path, up)


def path_of(file: File) -> Path:
    """The path of a file."""
    return file.path if isinstance(file, Turned) else file


def rotate_z_up(xyz_N3: AnyArray, up: Up) -> AnyArray:
    """Coordinates turned by quarter turns so that `up` becomes z; nothing is mirrored."""
    return xyz_N3 if up == "z" else xyz_N3 @ _ROTATIONS[up].T
