"""Point geometry: unit sphere, farthest point sampling, even sampling of surfaces. No randomness.

Shape legend: B clouds, N points, K chosen points, V vertices, M triangles.
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


def farthest_points(xyz_BN3: Floats, count: int) -> Integers:
    """Indices int64[B, K] of K points of each cloud, each the farthest from those chosen before it.

    Eldar et al., "The Farthest Point Strategy" (1997), used by PointNet++. Starts at a cloud's first point;
    ties go to the first one. Exact: all distances are computed, in float32. Of coinciding points one is
    taken; with fewer than K distinct points the first one fills the rest. O(B · N · K).
    """
    chosen_BK = np.zeros((len(xyz_BN3), count), np.int64)
    for xyz_N3, chosen_K in zip(xyz_BN3, chosen_BK, strict=True):
        _choose_farthest(xyz_N3, chosen_K)
    return chosen_BK


def _choose_farthest(xyz_N3: Floats, chosen_K: Integers) -> None:
    """Fill in the indices for one cloud. One cloud at a time stays in a core's cache."""
    xyz_3N = np.ascontiguousarray(xyz_N3.T, dtype=np.float32)
    points_N31 = np.ascontiguousarray(xyz_3N.T)[:, :, None]
    step_3N = np.empty_like(xyz_3N)
    apart_N = np.empty_like(xyz_3N[0])
    away_N = np.full_like(apart_N, np.inf)
    last = 0
    for place in range(1, len(chosen_K)):
        np.subtract(xyz_3N, points_N31[last], out=step_3N)
        np.multiply(step_3N, step_3N, out=step_3N)
        np.add(step_3N[0], step_3N[1], out=apart_N)
        np.add(apart_N, step_3N[2], out=apart_N)
        np.minimum(away_N, apart_N, out=away_N)
        last = int(away_N.argmax())
        chosen_K[place] = last


def surface_places(vertices_V3: Doubles, faces_M3: Integers, count: int) -> tuple[Integers, Doubles]:
    """`count` places spread over a triangle mesh by area, deterministically.

    Returns (triangle of each int64[count], weights of its corners float64[count, 3]). The i-th place falls on
    the triangle at the fraction (i + 1/2) / count of the area (stratified, so each triangle gets its share to
    within one point), at barycentric coordinates from the R2 low-discrepancy sequence (Roberts,
    2018), folded to the triangle by the square-root map (Osada et al., "Shape distributions", 2002, eq. 1).
    Raises ValueError for a mesh without area.
    """
    a_M3, b_M3, c_M3 = (vertices_V3[faces_M3[:, corner]] for corner in range(3))
    areas_M = np.linalg.norm(np.cross(b_M3 - a_M3, c_M3 - a_M3), axis=1) / 2
    reached_M = np.cumsum(areas_M)
    if not (len(reached_M) and 0 < reached_M[-1] < np.inf):
        raise ValueError("the mesh has no surface")
    i = np.arange(count)
    picked = np.searchsorted(reached_M, (i + 0.5) / count * reached_M[-1], side="right")
    plastic = 1.32471795724474602596  # the real root of x³ = x + 1, on which R2 is built
    u, v = np.modf(0.5 + (i + 1) / plastic)[0], np.modf(0.5 + (i + 1) / plastic**2)[0]
    root = np.sqrt(u)
    return picked, np.stack([1 - root, root * (1 - v), root * v], axis=1)


def at_places(values_VC: Doubles, faces_M3: Integers, picked_N: Integers, weights_N3: Doubles) -> Doubles:
    """Vertex attributes (coordinates, colours) interpolated at `surface_places`, float64[N, C]."""
    a_NC, b_NC, c_NC = (values_VC[faces_M3[picked_N, corner]] for corner in range(3))
    mixed: Doubles = weights_N3[:, :1] * a_NC + weights_N3[:, 1:2] * b_NC + weights_N3[:, 2:] * c_NC
    return mixed
