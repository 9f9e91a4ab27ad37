"""Reads PLY clouds and meshes (plyfile); and converts polygons to triangles, and surfaces to points."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.colours import named_colours
from data.readers.points.geometry import at_places, surface_places
from data.readers.stretch import Stretch
from data.readers.untrusted import decoding

SURFACE_POINTS = 8192  # the cloud size of UniBind's point branch (METHOD.md)
HEADER_BYTES = 2**20
BOM = b"\xef\xbb\xbf"
COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


def read_ply(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None) of a PLY file; one with faces is sampled over its surface.

    Colours are those of the vertices, else those of the faces.
    """
    import plyfile

    with _ascii_header(path) as file, decoding(path, "PLY file"):
        # Mapped where it is a binary file without lists: else plyfile reads number by number, in Python.
        ply = plyfile.PlyData.read(file)
        _check_end(path, file, ply)
        vertices = ply["vertex"].data
        xyz_V3 = np.stack([vertices[axis] for axis in "xyz"], axis=1)
        rgb_V3 = _colours(vertices)
        faces = ply["face"].data if "face" in ply and len(ply["face"].data) else None
        if "tristrips" in ply:
            raise SampleError(f"{path}: contains triangle strips; export it with faces")
        if faces is None:
            return xyz_V3, rgb_V3
        polygons = list(faces[_corner_list(faces)])
        corners = np.concatenate(polygons).astype(np.int64)
        triangles_M3, polygon_M = fans(corners, np.array([len(polygon) for polygon in polygons]))
        rgb_P3 = _colours(faces)
        rgb_M3 = None if rgb_P3 is None else rgb_P3[polygon_M]
    return sample_mesh(path, xyz_V3, triangles_M3, vertex_rgb_V3=rgb_V3, triangle_rgb_M3=rgb_M3)


def _colours(rows: AnyArray) -> Bytes | None:
    """uint8[N, 3] of the vertices or faces of a PLY; None where they have no colours."""
    names = rows.dtype.names or ()
    colours = next((each for each in COLOURS if set(each) <= set(names)), None)
    return named_colours(np.stack([rows[each] for each in colours], axis=1)) if colours else None


def _check_end(path: Path, file: io.BufferedReader, ply: Any) -> None:
    """Raise `SampleError` where a PLY goes on behind the elements that its header declares."""
    if ply.text:  # plyfile reads ahead; one line is one row
        with path.open("rb") as lines:
            for line in lines:
                if line.strip() == b"end_header":
                    break
            beyond = sum(bool(line.strip()) for line in lines) - sum(each.count for each in ply)
        what = f"{beyond:,} lines"
    else:
        beyond = len(file.read().rstrip(b"\0\r\n\x1a "))
        what = f"{beyond:,} bytes"
    if beyond > 0:
        raise SampleError(f"{path}: {what} behind the elements declared in its header; export it again")


def _ascii_header(path: Path) -> io.BufferedReader:
    """The file with non-ASCII characters of its header (in comments) replaced: plyfile fails on them.

    Raises `SampleError` for a header that declares more elements than bytes: plyfile would allocate them
    first.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(start)
        header = file.read(HEADER_BYTES).partition(b"end_header")[0]
    declared = sum(
        int(count) for count in re.findall(rb"^\s*element\s+\S+\s+(\d{1,18})", header, re.MULTILINE)
    )
    if declared > size:
        raise SampleError(f"{path}: truncated, its header declares {declared:,} elements; fetch it again")
    if not start and header.isascii() and b"format binary" in header:
        return path.open("rb")
    patches = {} if header.isascii() else {start: bytes(b if b < 128 else ord("?") for b in header)}
    return io.BufferedReader(Stretch(path, start, size, patches).open())


def _corner_list(faces: AnyArray) -> str:
    return next(name for name in ("vertex_indices", "vertex_index") if name in (faces.dtype.names or ()))


def fans(corners: AnyArray, sides_P: AnyArray) -> tuple[AnyArray, AnyArray]:
    """(triangles int64[M, 3], the polygon of each int64[M]): P polygons as fans around their first corner.

    `corners`: those of all polygons, concatenated. Polygons with fewer than three corners give no triangle.
    """
    count_P = np.maximum(sides_P - 2, 0)  # triangles of each polygon
    polygon_M = np.repeat(np.arange(len(sides_P)), count_P)
    first_M = (np.cumsum(sides_P) - sides_P)[polygon_M]
    second_M = first_M + 1 + np.arange(count_P.sum()) - np.repeat(np.cumsum(count_P) - count_P, count_P)
    return np.stack([corners[first_M], corners[second_M], corners[second_M + 1]], axis=1), polygon_M


def sample_mesh(
    path: Path,
    vertices_V3: AnyArray,
    triangles_M3: AnyArray,
    *,
    vertex_rgb_V3: Bytes | None = None,
    triangle_rgb_M3: Bytes | None = None,
) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None): `SURFACE_POINTS` points of a mesh, and its colours there.

    Colours of corners are interpolated over a triangle. Raises `SampleError` for a mesh without a surface.
    """
    if not np.isfinite(vertices_V3).all():
        raise SampleError(f"{path}: holds NaN or infinite coordinates; export the mesh again")
    if not len(triangles_M3) or triangles_M3.min() < 0 or triangles_M3.max() >= len(vertices_V3):
        raise SampleError(f"{path}: its faces refer to missing vertices; export the mesh again")
    try:
        picked_N, weights_N3 = surface_places(vertices_V3.astype(np.float64), triangles_M3, SURFACE_POINTS)
    except ValueError as error:
        raise SampleError(f"{path}: {error}; export the mesh again") from error
    xyz_N3 = at_places(vertices_V3.astype(np.float64), triangles_M3, picked_N, weights_N3)
    if vertex_rgb_V3 is not None:
        rgb_N3 = at_places(vertex_rgb_V3.astype(np.float64), triangles_M3, picked_N, weights_N3)
        return xyz_N3, np.rint(rgb_N3).astype(np.uint8)
    return xyz_N3, None if triangle_rgb_M3 is None else triangle_rgb_M3[picked_N]
