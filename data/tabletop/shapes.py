"""The four shapes: triangle meshes for ray casting, and exact normals of the ideal surfaces.

Local coordinates: metres, origin in the middle of the bounding box, z along the axis of symmetry.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from data.tabletop.objects import ObjectSpec, Shape

F32 = NDArray[np.float32]


def f32(values: ArrayLike) -> F32:
    """Values as a float32 array: what Embree takes, and half the work of float64."""
    return np.asarray(values, np.float32)


BEVEL = 0.06  # of the cube's edge: the part at either end that is rounded off


def mesh_of(spec: ObjectSpec) -> trimesh.Trimesh:
    """A closed mesh of 28 (cube) to 5,120 (sphere) triangles."""
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
    normals = _NORMALS[spec.shape](spec, points_N3)
    return f32(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def _sphere_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    return points_N3


def _cube_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    core = np.float32(spec.size / 2 * (1 - 2 * BEVEL))
    return points_N3 - np.clip(points_N3, -core, core)


def _cone_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    radius, half = np.float32(spec.radius), np.float32(spec.half_height)
    ring = np.maximum(np.linalg.norm(points_N3[:, :2], axis=1, keepdims=True), np.float32(1e-9))
    side = np.concatenate([points_N3[:, :2] / ring * (2 * half), np.full_like(ring, radius)], axis=1)
    on_base = points_N3[:, 2] < -half * np.float32(0.998)
    side[on_base] = (0, 0, -1)
    return side


def _torus_normals(spec: ObjectSpec, points_N3: F32) -> F32:
    ring = np.maximum(np.linalg.norm(points_N3[:, :2], axis=1, keepdims=True), np.float32(1e-9))
    middle = points_N3.copy()
    middle[:, :2] *= np.float32(spec.radius) / ring
    middle[:, 2] = 0
    return points_N3 - middle


_NORMALS: dict[Shape, Callable[[ObjectSpec, F32], F32]] = {
    "sphere": _sphere_normals,
    "cube": _cube_normals,
    "cone": _cone_normals,
    "torus": _torus_normals,
}
