"""Point geometry: the unit sphere, farthest points, and even samples of a surface. No randomness.

Shape legend: N points, K chosen points, V vertices, M triangles.
"""

from __future__ import annotations

import numpy as np

from data.readers.payload import Doubles, Floats, Integers


def unit_sphere(xyz_N3: Floats) -> Floats:
    """Centre a cloud on its mean and scale its farthest point onto the unit sphere, float32[N, 3].

    The convention of PointNet and ModelNet40. Raises ValueError where all points coincide.
    """
    centred_N3 = xyz_N3.astype(np.float64)
    centred_N3 -= centred_N3.mean(axis=0)
    radius = float(np.sqrt((centred_N3**2).sum(axis=1).max()))
    if not radius > 0:
        raise ValueError("all points of the cloud coincide")
    return (centred_N3 / radius).astype(np.float32)


def farthest_points(xyz_N3: Floats, count: int) -> Integers:
    """Indices int64[K] of K = min(count, N) points, each the farthest from those chosen before it.

    Gonzalez (1985), as PointNet++ samples; it starts at the point farthest from the mean instead of at a
    random one, and ties go to the first point, so equal clouds give equal answers. Exact: every distance is
    worked out, in float32. No index comes twice, even where points coincide. O(N · K).
    """
    xyz_3N = np.ascontiguousarray(xyz_N3.T, dtype=np.float32)
    count = min(count, xyz_3N.shape[1])
    chosen_K = np.empty(count, np.int64)
    away_N = np.full(xyz_3N.shape[1], np.inf, np.float32)
    start_3 = xyz_3N.mean(axis=1)
    newest = int(((xyz_3N - start_3[:, None]) ** 2).sum(axis=0).argmax())
    for k in range(count):
        chosen_K[k] = newest
        step_3N = xyz_3N - xyz_3N[:, newest, None]
        np.minimum(away_N, np.einsum("ij,ij->j", step_3N, step_3N), out=away_N)
        away_N[newest] = -1  # below any distance, so that it is not taken again
        newest = int(away_N.argmax())
    return chosen_K


def sample_surface(vertices_V3: Doubles, faces_M3: Integers, count: int) -> Doubles:
    """`count` points spread over a triangle mesh by area, float64[count, 3], the same for the same mesh.

    The i-th point falls on the triangle that holds the fraction (i + 1/2) / count of the area (stratified, so
    each triangle gets its share to within one point), at barycentric coordinates from the R2 low-discrepancy
    sequence (Roberts, 2018), folded to the triangle by the square-root map (Osada et al., "Shape
    distributions", 2002, eq. 1). Raises ValueError for a mesh without area.
    """
    a_M3, b_M3, c_M3 = (vertices_V3[faces_M3[:, corner]] for corner in range(3))
    areas_M = np.linalg.norm(np.cross(b_M3 - a_M3, c_M3 - a_M3), axis=1) / 2
    reached_M = np.cumsum(areas_M)
    if not (len(reached_M) and 0 < reached_M[-1] < np.inf):
        raise ValueError("the mesh has no surface")
    i = np.arange(count)
    picked = np.searchsorted(reached_M, (i + 0.5) / count * reached_M[-1], side="right")
    plastic = 1.32471795724474602596  # the real root of x³ = x + 1, on which R2 is built
    u, v = np.modf(0.5 + (i + 1) / plastic)[0][:, None], np.modf(0.5 + (i + 1) / plastic**2)[0][:, None]
    root = np.sqrt(u)
    points: Doubles = (1 - root) * a_M3[picked] + root * (1 - v) * b_M3[picked] + root * v * c_M3[picked]
    return points
