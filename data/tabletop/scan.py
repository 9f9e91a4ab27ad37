"""The surface point cloud, as several scans from all around put together: binary PLY, float32 metres.

Points are spread evenly over the surface. Each is off by the surface's own roughness and by the scanner's
error in range, which grows as less light comes back: the intensity model σ = σ₁ · I^(-½) of D. Wujanz, M.
Burger, M. Mettenleiter, F. Neitzel, "An intensity-based stochastic model for terrestrial laser scanners"
(ISPRS J. Photogrammetry and Remote Sensing 125, 2017), with I = reflectance × cosine of incidence (Lambert).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.scene import rotation
from data.tabletop.shapes import F32, f32, mesh_of, normals_at

RANGE_NOISE = 1.2e-4  # m, of the scanner on a white surface that faces it


def write_scan(spec: ObjectSpec, path: Path, *, count: int) -> None:
    """Write the point cloud of an object, `count` points."""
    points_N3 = scan(spec, count=count)
    rows = np.empty(count, dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    rows["x"], rows["y"], rows["z"] = points_N3.T
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))


def scan(spec: ObjectSpec, *, count: int) -> F32:
    """Points [count, 3] in metres, in the scanner's coordinates: upright, turned and shifted at random."""
    rng = random_of(spec, "point")
    mesh = mesh_of(spec)
    faces_N = rng.choice(len(mesh.faces), size=count, p=mesh.area_faces / mesh.area)
    u, v = (
        np.sqrt(rng.random((count, 1))),
        rng.random((count, 1)),
    )  # uniform in a triangle: Osada et al. 2002, eq. 1
    corners = mesh.triangles[faces_N]
    points_N3 = ((1 - u) * corners[:, 0] + u * (1 - v) * corners[:, 1] + u * v * corners[:, 2]).astype(
        np.float32
    )
    normals_N3 = normals_at(spec, points_N3)
    stuff = spec.stuff
    cosine_N = rng.uniform(0.35, 1.0, count)  # every spot was seen from somewhere, more or less squarely
    sigma_N = np.hypot(RANGE_NOISE / np.sqrt(stuff.scan_reflectance * cosine_N), stuff.roughness)
    points_N3 += (sigma_N * rng.standard_normal(count)).astype(np.float32)[:, None] * normals_N3
    shift_3 = rng.uniform(-0.2, 0.2, 3) * (1, 1, 0) + (0, 0, spec.half_height)
    return f32(points_N3 @ rotation((0, 0, 1), spec.yaw).T + shift_3)
