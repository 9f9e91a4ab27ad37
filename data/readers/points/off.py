"""Reads OFF meshes with polygons of any number of corners; and the variants COFF, NOFF, STOFF.

Source: Geomview's OFF format: an optional keyword with letters for the attributes of vertices, the numbers of
vertices, faces and edges, then one line each. ModelNet40 writes `OFF8 12 0`, without a line break.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.colours import named_colours
from data.readers.points.mesh import fans, sample_mesh
from data.readers.untrusted import decoding

_KEYWORD = re.compile(r"(ST)?(C)?(N)?OFF\b|(ST)?(C)?(N)?OFF(?=\d)")


def read_off(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None) sampled over the surface; of a file without faces, its vertices."""
    text = path.read_bytes().decode("latin-1").lstrip("ï»¿")
    lines = [line for line in (each.partition("#")[0].strip() for each in text.splitlines()) if line]
    if not lines:
        raise SampleError(f"{path}: contains no OFF mesh; export it again")
    keyword = _KEYWORD.match(lines[0])
    if keyword is None and not lines[0][0].isdigit():
        raise SampleError(f"{path}: is not a text OFF mesh with three coordinates; export it as one")
    has_colours, has_normals = (False, False) if keyword is None else ("C" in keyword[0], "N" in keyword[0])
    if "BINARY" in lines[0].upper():
        raise SampleError(f"{path}: binary OFF is not read; export it as text")
    first = lines[0] if keyword is None else lines[0][keyword.end() :].strip()
    body = [first, *lines[1:]] if first else lines[1:]
    with decoding(path, "OFF mesh"):
        vertices, faces = (int(count) for count in body[0].split()[:2])
    _check_counts(path, vertices, faces, len(body) - 1)
    with decoding(path, "OFF mesh"):
        numbers_VC = np.loadtxt(body[1 : vertices + 1], dtype=np.float64, ndmin=2, comments=None)
    if numbers_VC.shape[1] < 3:
        raise SampleError(f"{path}: its vertices have {numbers_VC.shape[1]} coordinates; export it again")
    colour_at = 6 if has_normals else 3
    rgb_V3 = named_colours(numbers_VC[:, colour_at : colour_at + 3]) if has_colours else None
    if not faces:
        return numbers_VC[:, :3], rgb_V3
    with decoding(path, "OFF mesh"):
        corners, sides_P, rgb_P3 = _faces(body[vertices + 1 :])
    triangles_M3, polygon_M = fans(corners, sides_P)
    rgb_M3 = None if rgb_P3 is None else rgb_P3[polygon_M]
    return sample_mesh(path, numbers_VC[:, :3], triangles_M3, vertex_rgb_V3=rgb_V3, triangle_rgb_M3=rgb_M3)


def _check_counts(path: Path, vertices: int, faces: int, there: int) -> None:
    if vertices < 0 or faces < 0 or there < vertices + faces:
        found = max(0, there - max(0, vertices))
        raise SampleError(f"{path}: truncated, {found:,} of {faces:,} faces are there; fetch it again")
    if there > vertices + faces:
        raise SampleError(
            f"{path}: {there - vertices - faces:,} lines after the {faces:,} faces declared in its header; "
            "export it again"
        )


def _faces(lines: Sequence[str]) -> tuple[AnyArray, AnyArray, Bytes | None]:
    """(corners of all faces concatenated, the number of each, the faces' colours if all have one)."""
    words = [line.split() for line in lines]
    sides_P = np.array([int(each[0]) for each in words])
    if any(len(each) < side + 1 for each, side in zip(words, sides_P.tolist(), strict=True)):
        raise ValueError("a face with fewer corners than declared")
    pairs = list(zip(words, sides_P.tolist(), strict=True))
    corners = np.array([corner for each, side in pairs for corner in each[1 : side + 1]], dtype=np.int64)
    rest = [each[side + 1 : side + 4] for each, side in pairs]
    rgb_P3 = None
    if all(len(each) == 3 for each in rest):  # a single number is an index into an external colour map
        rgb_P3 = named_colours(np.array(rest, dtype=np.float64))
    return corners, sides_P, rgb_P3
