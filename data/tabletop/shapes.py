"""The four shapes: triangle meshes for ray casting, exact normals of the surfaces; and many vectors at once.

Local coordinates: metres, origin in the middle of the bounding box, z along the axis of symmetry.

Many vectors [N, 3] lie column by column in memory (Fortran's order), so that NumPy's loops run over N, not
over 3: they are ten times as fast. The functions take any order, which changes no bit of what they return.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from data.tabletop.objects import ObjectSpec, Shape

F32 = NDArray[np.float32]
Indices = NDArray[np.intp]


def f32(values: ArrayLike) -> F32:
    """Values as a float32 array: what Embree takes, and half the work of float64."""
    return np.asarray(values, np.float32)


def dot(a_N3: F32, b: F32) -> F32:
    """Scalar products of rows with rows [N, 3], or with one vector [3]."""
    if b.ndim == 1:
        # The matrix product adds in an order that depends on how rows lie in memory.
        return f32(row_by_row(a_N3) @ b)
    return f32(a_N3[:, 0] * b[:, 0] + a_N3[:, 1] * b[:, 1] + a_N3[:, 2] * b[:, 2])


def unit(vectors_N3: F32) -> F32:
    """Vectors scaled to unit length."""
    length_N = np.sqrt(dot(vectors_N3, vectors_N3))
    return f32(vectors_N3 / np.maximum(length_N, 1e-12)[:, None])


def turned(vectors_N3: F32, matrix_33: F32) -> F32:
    """`vectors_N3 @ matrix_33`, column by column in memory."""
    return f32((matrix_33.T @ np.ascontiguousarray(vectors_N3.T)).T)


def spread(vector_3: F32, weight_N: F32) -> F32:
    """One vector times each weight, [N, 3], column by column in memory."""
    return f32((vector_3[:, None] * weight_N).T)


def pick(vectors_N3: F32, places: Indices) -> F32:
    """The vectors at some places; one that stands for all is repeated."""
    if len(vectors_N3) == 1:
        return np.broadcast_to(vectors_N3, (len(places), 3))
    return vectors_N3.T.take(places, axis=1).T


def put(vectors_N3: F32, places: Indices, values_M3: F32) -> None:
    """`vectors_N3[places] = values_M3`."""
    for axis in range(3):
        vectors_N3[:, axis][places] = values_M3[:, axis]


def row_by_row(vectors_N3: F32) -> F32:
    """The same vectors, row by row in memory."""
    if vectors_N3.flags.c_contiguous:
        return vectors_N3
    rows_N3 = np.empty(vectors_N3.shape, vectors_N3.dtype)
    for axis in range(3):
        rows_N3[:, axis] = vectors_N3[:, axis]
    return rows_N3


BEVEL = 0.06  # of the cube's edge: the part at either end that is rounded off


@lru_cache(maxsize=1)  # light, sound and scan of an object need it in turn
def mesh_of(spec: ObjectSpec) -> trimesh.Trimesh:
    """A closed mesh of 28 (cube) to 5,120 (sphere) triangles. It is shared: copy it to change it."""
    if spec.shape == "torus":
        return trimesh.creation.torus(spec.radius, spec.half_height, major_sections=72, minor_sections=28)
    mesh = _unit_mesh(spec.shape).copy()
    mesh.apply_scale([spec.radius, spec.radius, spec.half_height])
    return mesh


@lru_cache(maxsize=3)
def _unit_mesh(shape: Shape) -> trimesh.Trimesh:
    """The shape within [-1, 1]³."""
    if shape == "sphere":
        return trimesh.creation.icosphere(subdivisions=4)
    if shape == "cone":
        mesh = trimesh.creation.cone(1.0, 2.0, sections=128)
        mesh.apply_translation([0, 0, -1])
        return mesh
    inner = 1 - 2 * BEVEL * 0.2929  # the chamfer that a rounding of radius 2·BEVEL touches: 1 - 1/√2 of it
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    chamfered = [corners * scale for scale in ((1, inner, inner), (inner, 1, inner), (inner, inner, 1))]
    return trimesh.convex.convex_hull(np.concatenate(chamfered))


def normals_at(spec: ObjectSpec, points_N3: F32) -> F32:
    """Unit normals of the true (untriangulated) surface at points on or near it."""
    return unit(_NORMALS[spec.shape](spec, points_N3))


def _sphere_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    return points_N3


def _cube_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    core = np.float32(spec.size / 2 * (1 - 2 * BEVEL))
    return points_N3 - np.clip(points_N3, -core, core)


def _cone_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    radius, half = np.float32(spec.radius), np.float32(spec.half_height)
    ring = _ring(points_N3)
    side = np.concatenate([points_N3[:, :2] / ring * (2 * half), np.full_like(ring, radius)], axis=1)
    on_base = points_N3[:, 2] < -half * np.float32(0.998)
    side[on_base] = (0, 0, -1)
    return side


def _torus_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    ring = _ring(points_N3)
    middle = points_N3.copy(order="K")
    middle[:, :2] *= np.float32(spec.radius) / ring
    middle[:, 2] = 0
    return points_N3 - middle


def _ring(points_N3: F32) -> F32:
    """How far points lie from the axis, [N, 1]."""
    away_N = np.sqrt(points_N3[:, 0] * points_N3[:, 0] + points_N3[:, 1] * points_N3[:, 1])
    return np.maximum(away_N, np.float32(1e-9))[:, None]


_NORMALS: dict[Shape, Callable[[ObjectSpec, F32], F32]] = {
    "sphere": _sphere_normals,
    "cube": _cube_normals,
    "cone": _cone_normals,
    "torus": _torus_normals,
}
