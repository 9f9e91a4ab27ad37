"""Reads the colours of an OBJ's materials from its material libraries (MTL).

Only names and diffuse colours are read, and only from libraries in the OBJ's own folder or below: no other
file that an OBJ refers to is opened. Source: Wavefront's "MTL material format" (Kd, map_Kd).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.paths import resolve
from data.readers.payload import Bytes
from data.readers.untrusted import MEBIBYTE

MAX_BYTES = 4 * MEBIBYTE


def libraries(path: Path, names: Sequence[str]) -> list[Path]:
    """The paths of the libraries that an OBJ refers to, in order, existing or not; only inside its folder."""
    places: list[Path] = []
    for name in names:
        # A space may be part of a name or separate two names; Windows programs write backslashes.
        for each in [name, *name.split()] if " " in name else [name]:
            try:
                places.append(resolve(path.parent, each.replace("\\", "/")))
            except SampleError:  # outside the folder
                continue
    return list(dict.fromkeys(places))


def diffuse_colours(places: Sequence[Path]) -> dict[str, Bytes | None]:
    """uint8[3] by material, from the libraries that exist; None for a material with a texture."""
    colours: dict[str, Bytes | None] = {}
    for library in places:
        if not library.is_file() or library.stat().st_size > MAX_BYTES:
            continue
        material = None
        textured: set[str] = set()
        for line in library.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            key, _, value = line.strip().partition(" ")
            if key == "newmtl":
                material = value.strip()
            elif key == "Kd" and material is not None and material not in colours:
                colours[material] = _colour(value)
            elif key == "map_Kd" and material is not None:
                textured.add(material)
        colours |= dict.fromkeys(textured)
    return colours


def _colour(value: str) -> Bytes | None:
    """The colour of three numbers from 0 to 1; None for other notations (spectral, xyz)."""
    try:
        parts = np.array([float(each) for each in value.split()[:3]])
    except ValueError:
        return None
    if len(parts) != 3 or not ((parts >= 0) & (parts <= 1)).all():
        return None
    rgb_3: Bytes = np.rint(parts * 255).astype(np.uint8)
    return rgb_3
