"""PLY clouds and meshes (plyfile), OFF and OBJ meshes (trimesh); surfaces are sampled by area."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.geometry import sample_surface
from data.readers.payload import AnyArray, Bytes
from data.readers.point import to_colours
from data.readers.untrusted import decoding

SURFACE_POINTS = 8192  # the cloud size of UniBind's point branch (METHOD.md)
HEADER_BYTES = 64 * 1024


def read_ply(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None) of a PLY file; one with faces is sampled over its surface."""
    import plyfile

    _check_declared(path)
    with decoding(path, "PLY file"):
        ply = plyfile.PlyData.read(str(path), mmap=False)
        vertices = ply["vertex"].data
        xyz_V3 = np.stack([vertices[axis] for axis in "xyz"], axis=1)
        faces = ply["face"].data if "face" in ply and len(ply["face"].data) else None
        triangles = None if faces is None else _triangles(list(faces[_corner_list(faces)]))
    if triangles is not None:
        return _sample(path, xyz_V3, triangles), None
    names = vertices.dtype.names or ()
    colour_names = next(
        (c for c in (("red", "green", "blue"), ("r", "g", "b")) if set(c) <= set(names)), None
    )
    return xyz_V3, to_colours(np.stack([vertices[c] for c in colour_names], axis=1)) if colour_names else None


def read_mesh(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], None) sampled over the surface of an OFF or OBJ mesh; without faces, its vertices."""
    import trimesh

    # Opened by us and without materials: trimesh then has no way to fetch the other files that an OBJ names.
    with decoding(path, "mesh"), path.open("rb") as file:
        mesh = trimesh.load(
            file, file_type=path.suffix[1:].lower(), process=False, skip_materials=True, split_objects=False
        )
        if not hasattr(mesh, "vertices"):
            raise SampleError(f"{path}: holds no vertices; export the mesh again")
        vertices_V3 = np.asarray(mesh.vertices, dtype=np.float64)
        faces_M3 = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), dtype=np.int64)
    if path.suffix.lower() == ".off":
        _check_off_whole(path, len(faces_M3))
    return (_sample(path, vertices_V3, faces_M3) if len(faces_M3) else vertices_V3), None


def _check_declared(path: Path) -> None:
    """Refuse a PLY header that declares more elements than there are bytes: plyfile takes memory first."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES).partition(b"end_header")[0]
    declared = sum(
        int(count) for count in re.findall(rb"^\s*element\s+\S+\s+(\d{1,18})", header, re.MULTILINE)
    )
    if declared > path.stat().st_size:
        raise SampleError(f"{path}: truncated, its header declares {declared:,} elements; fetch it again")


def _check_off_whole(path: Path, triangles: int) -> None:
    """Refuse an OFF file with fewer faces than its header declares; trimesh takes what is there."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8", errors="replace"))
    counts = text.partition("OFF")[2].split(
        maxsplit=2
    )  # vertices, faces; each face gives one triangle or more
    if triangles < int(counts[1]):
        raise SampleError(f"{path}: truncated, {triangles} of {counts[1]} faces are there; fetch it again")


def _corner_list(faces: AnyArray) -> str:
    return next(name for name in ("vertex_indices", "vertex_index") if name in (faces.dtype.names or ()))


def _triangles(polygons: list[AnyArray]) -> AnyArray:
    """int64[M, 3]: polygons as fans around their first corner."""
    corners = np.concatenate(polygons).astype(np.int64)
    sides = np.array([len(polygon) for polygon in polygons])
    fans = np.maximum(sides - 2, 0)  # triangles of each polygon
    first_M = np.repeat(np.cumsum(sides) - sides, fans)
    second_M = first_M + 1 + np.arange(fans.sum()) - np.repeat(np.cumsum(fans) - fans, fans)
    return np.stack([corners[first_M], corners[second_M], corners[second_M + 1]], axis=1)


def _sample(path: Path, vertices_V3: AnyArray, faces_M3: AnyArray) -> AnyArray:
    if not np.isfinite(vertices_V3).all():
        raise SampleError(f"{path}: holds NaN or infinite coordinates; mend the mesh")
    if not len(faces_M3) or faces_M3.min() < 0 or faces_M3.max() >= len(vertices_V3):
        raise SampleError(f"{path}: its faces name vertices that it does not hold; export the mesh again")
    try:
        return sample_surface(vertices_V3.astype(np.float64), faces_M3, SURFACE_POINTS)
    except ValueError as error:
        raise SampleError(f"{path}: {error}; export the mesh again") from error
