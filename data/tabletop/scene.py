"""Cameras, poses and ray casting: one object over an endless table, in metres, z up, the table at z = 0.

Legend: N rays or points, HW picture. Where all rays start at one point, `origins_N3` may be [1, 3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

from data.tabletop.objects import ObjectSpec
from data.tabletop.shapes import F32, Indices, dot, f32, mesh_of, normals_at, pick, row_by_row, turned, unit

Bool = NDArray[np.bool_]
FAR = np.float32(1e30)  # the distance of what is never hit


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera with square pixels."""

    eye_3: F32
    axes_33: F32  # unit vectors to the right, up and forward, as rows
    width: int
    height: int
    view_angle: float  # radians, of the shorter side


@dataclass(frozen=True, slots=True)
class Body:
    """An object in its place: world point = local point @ rotation_33.T + centre_3."""

    spec: ObjectSpec
    solid: Any  # the object's Embree scene, in local coordinates
    rotation_33: F32
    centre_3: F32

    @property
    def reach(self) -> float:
        """Radius in metres of a ball about the centre that holds the object."""
        spec = self.spec
        if spec.shape == "cube":
            return float(spec.size / 2 * np.sqrt(3))
        return float(np.hypot(spec.radius, spec.half_height)) if spec.shape == "cone" else spec.size / 2

    def to_local(self, points_N3: F32) -> F32:
        """World points in the object's own coordinates."""
        return turned(points_N3 - self.centre_3, self.rotation_33)

    def turn_to_local(self, directions_N3: F32) -> F32:
        """World directions in the object's own coordinates."""
        return turned(directions_N3, self.rotation_33)

    def turn_to_world(self, directions_N3: F32) -> F32:
        """Directions of the object's own coordinates in the world's."""
        return turned(directions_N3, self.rotation_33.T)


def solid_of(spec: ObjectSpec) -> Any:
    """The object's triangles in an Embree scene, ready to be cast at."""
    solid = rtcore_scene.EmbreeScene()
    TriangleMesh(solid, mesh_of(spec).triangles.astype(np.float32))
    return solid


def upright(spec: ObjectSpec, solid: Any) -> Body:
    """The object standing on the table at the origin, turned by its yaw."""
    centre_3 = np.array([0, 0, spec.half_height], np.float32)
    return Body(spec, solid, rotation((0, 0, 1), spec.yaw), centre_3)


def rotation(axis: tuple[float, float, float], angle: float) -> F32:
    """Rotation matrix about an axis by an angle in radians (Rodrigues' formula)."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return f32(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def direction(azimuth: float, elevation: float) -> F32:
    """Unit vector towards an azimuth and an elevation in radians."""
    flat = np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], np.float32)


def rays(camera: Camera, x_N: F32, y_N: F32) -> F32:
    """Unit directions [N, 3] through picture points (0, 0 is the upper left corner, not a pixel's centre)."""
    scale = 2 * np.tan(camera.view_angle / 2) / min(camera.width, camera.height)
    seen_N3 = np.ones((len(x_N), 3), np.float32, order="F")
    seen_N3[:, 0] = (x_N - camera.width / 2) * scale
    seen_N3[:, 1] = (camera.height / 2 - y_N) * scale
    return unit(turned(seen_N3, camera.axes_33))


def cast(body: Body, origins_N3: F32, towards_N3: F32) -> F32:
    """Distances [N] in metres along world rays to the object; FAR where they miss it."""
    near, local_origins, local_towards = _near_rays(body, origins_N3, towards_N3)
    distance_N = np.full(len(towards_N3), FAR, np.float32)
    if len(near):
        found: F32 = body.solid.run(local_origins, local_towards, query="DISTANCE")
        distance_N[near] = np.minimum(found, FAR)
    return distance_N


def is_blocked(body: Body, points_N3: F32, towards_3: F32) -> Bool:
    """Whether the object lies between world points and what is far off in one direction."""
    near, local_origins, local_towards = _near_rays(body, points_N3, towards_3[None])
    blocked_N = np.zeros(len(points_N3), bool)
    if len(near):
        blocked_N[near] = body.solid.run(local_origins, local_towards, query="OCCLUDED") == 0
    return blocked_N


def _near_rays(body: Body, origins_N3: F32, towards_N3: F32) -> tuple[Indices, F32, F32]:
    """The rays that pass through the ball around the object, for Embree: their places, and they themselves
    in the object's own coordinates."""
    offset_N3 = body.centre_3 - origins_N3
    along_N = dot(offset_N3, towards_N3)
    reach = np.float32(body.reach)
    near = np.flatnonzero((dot(offset_N3, offset_N3) - along_N**2 < reach**2) & (along_N > -reach))
    return near, _local(body.to_local, origins_N3, near), _local(body.turn_to_local, towards_N3, near)


def _local(turn: Callable[[F32], F32], vectors_N3: F32, near: Indices) -> F32:
    """Some vectors in the object's own coordinates, row by row in memory; one that stands for all is turned
    once, which is to say twice: a product of a single row may add in another order."""
    if len(vectors_N3) == 1:
        return row_by_row(np.broadcast_to(turn(pick(vectors_N3, near[:2]))[:1], (len(near), 3)))
    return row_by_row(turn(pick(vectors_N3, near)))


def normals(body: Body, points_N3: F32) -> F32:
    """Outward unit normals [N, 3] of the object at world points of its surface."""
    return body.turn_to_world(normals_at(body.spec, body.to_local(points_N3)))


def table_distance(origins_N3: F32, towards_N3: F32) -> F32:
    """Distances [N] along world rays to the table; FAR where they go up or level."""
    down_N = -towards_N3[:, 2]
    falls_N = down_N > 1e-4
    return np.where(falls_N, origins_N3[:, 2] / np.where(falls_N, down_N, 1), FAR).astype(np.float32)


def pixel_centres(camera: Camera) -> tuple[F32, F32]:
    """Picture coordinates x, y [H·W] of all pixel centres, row by row; not to be written to."""
    return _centres(camera.height, camera.width)


@lru_cache(maxsize=4)  # of a film, all pictures have the same
def _centres(height: int, width: int) -> tuple[F32, F32]:
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32) + np.float32(0.5)
    return x_HW.ravel(), y_HW.ravel()


def frame_camera(
    target_3: F32,
    *,
    span: float,
    azimuth: float,
    elevation: float,
    width: int,
    height: int,
    view_angle: float,
) -> Camera:
    """A camera that sees `span` metres across its shorter side at the target."""
    distance = span / 2 / np.tan(view_angle / 2)
    eye_3 = (target_3 + np.float32(distance) * direction(azimuth, elevation)).astype(np.float32)
    forward = target_3.astype(np.float32) - eye_3
    right = np.cross(forward, (0, 0, 1))
    axes_33 = np.stack([right, np.cross(right, forward), forward])
    axes_33 /= np.linalg.norm(axes_33, axis=1, keepdims=True)
    return Camera(eye_3, axes_33.astype(np.float32), width, height, view_angle)
