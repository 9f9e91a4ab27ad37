"""Reads OBJ meshes: all objects and groups of a file together are one sample.

Source: Wavefront's "OBJ file format", B1 (vertices, faces, groups, materials); colours after a vertex's
coordinates are an extension of MeshLab and ZBrush. Free-form curves and surfaces are not supported.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.colours import named_colours
from data.readers.points.materials import diffuse_colours, libraries
from data.readers.points.mesh import fans, sample_mesh
from data.readers.untrusted import decoding

FREE_FORM = frozenset(("curv", "curv2", "surf", "csh", "call"))


@dataclass
class _Obj:
    """The parsed parts of an OBJ. Materials are numbered in the order of their first use; −1: none yet."""

    vertices: list[str] = field(default_factory=list)
    corners: array[int] = field(default_factory=lambda: array("q"))
    sides: array[int] = field(default_factory=lambda: array("q"))
    material_of: array[int] = field(default_factory=lambda: array("q"))
    materials: dict[str, int] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def read_obj(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None) sampled over the surface; of a file without faces, its vertices.

    Colours are vertex colours, else the materials' diffuse colours, if every face has one and none has a
    texture.
    """
    with decoding(path, "OBJ mesh"):
        obj = _parse(path.read_bytes().decode("utf-8-sig", errors="replace"), path)
        if not obj.vertices:
            raise SampleError(f"{path}: contains no vertices; export the mesh again")
        xyz_V3, rgb_V3 = _vertices(obj.vertices)
        if not obj.sides:
            return xyz_V3, rgb_V3
        triangles_M3, polygon_M = fans(np.array(obj.corners), np.array(obj.sides))
    rgb_M3 = None
    if rgb_V3 is None and len(triangles_M3):
        rgb_M3 = _material_colours(obj, path, np.array(obj.material_of)[polygon_M])
    return sample_mesh(path, xyz_V3, triangles_M3, vertex_rgb_V3=rgb_V3, triangle_rgb_M3=rgb_M3)


def obj_libraries(path: Path) -> list[Path]:
    """The material libraries that reading an OBJ opens, existing or not."""
    names = []
    with path.open("rb") as file:
        for line in file:
            words = line.removeprefix(b"\xef\xbb\xbf").split(None, 1)
            if words[1:] and words[0] == b"mtllib":
                names.append(words[1].decode("utf-8", errors="replace").strip())
    return libraries(path, names)


def _parse(text: str, path: Path) -> _Obj:
    obj = _Obj()
    material, count = -1, 0
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if key == "v":
            obj.vertices.append(rest)
            count += 1
        elif key in {"f", "fo"}:  # fo: an older form
            words = rest.partition("#")[0].split()
            for word in words:
                corner = int(word.partition("/")[0])
                if corner == 0:
                    raise SampleError(
                        f"{path}: a face refers to vertex 0, but numbers start at 1; export it again"
                    )
                obj.corners.append(corner - 1 if corner > 0 else count + corner)
            obj.sides.append(len(words))
            obj.material_of.append(material)
        elif key == "usemtl":
            material = obj.materials.setdefault(rest.strip(), len(obj.materials))
        elif key == "mtllib":
            obj.libraries.append(rest.strip())
        elif key in FREE_FORM:
            raise SampleError(
                f"{path}: contains {key!r}, which is not a polygon; export it as a polygon mesh"
            )
    return obj


def _vertices(lines: list[str]) -> tuple[AnyArray, Bytes | None]:
    """Coordinates and colours: x y z, x y z w, or x y z r g b, the same for all vertices."""
    numbers_VC = np.loadtxt(lines, dtype=np.float64, ndmin=2, comments="#")
    if len(numbers_VC) != len(lines) or numbers_VC.shape[1] < 3:
        raise ValueError("a vertex with fewer than three coordinates")
    return numbers_VC[:, :3], named_colours(numbers_VC[:, 3:6]) if numbers_VC.shape[1] == 6 else None


def _material_colours(obj: _Obj, path: Path, material_M: AnyArray) -> Bytes | None:
    if not obj.materials or material_M.min() < 0:
        return None
    colours = diffuse_colours(libraries(path, obj.libraries))
    by_name = [colours.get(name) for name in obj.materials]
    used = np.unique(material_M)
    if any(by_name[number] is None for number in used):
        return None
    table_C3 = np.zeros((len(by_name), 3), np.uint8)
    for number in used:
        table_C3[number] = by_name[number]
    return table_C3[material_M]
