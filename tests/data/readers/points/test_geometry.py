"""Point geometry against brute force and analytic answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh

from data.readers.payload import Doubles, Integers
from data.readers.points.geometry import at_places, farthest_points, surface_places, unit_sphere
from data.readers.points.point import read_point


def sample_surface(vertices: Doubles, faces: Integers, count: int) -> Doubles:
    return at_places(vertices, faces, *surface_places(vertices, faces, count))


def test_unit_sphere_centres_and_scales() -> None:
    """The mean moves to the origin, the farthest point onto the sphere, and shape is kept."""
    cloud = np.random.default_rng(0).normal((5, -3, 100), (1, 2, 3), (500, 3)).astype(np.float32)
    unit = unit_sphere(cloud)
    assert np.abs(unit.mean(axis=0)).max() < 1e-6
    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1, abs=1e-6)
    ratio = np.linalg.norm(cloud[1:] - cloud[:-1], axis=1) / np.linalg.norm(unit[1:] - unit[:-1], axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    np.testing.assert_allclose(unit_sphere(cloud * 1000), unit, atol=1e-5)


def test_coinciding_points_have_no_scale() -> None:
    """A cloud of one place cannot be scaled."""
    with pytest.raises(ValueError, match="coincide"):
        unit_sphere(np.ones((20, 3), np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_farthest_points_against_a_slow_loop(seed: int) -> None:
    """Point by point, in float64, the same points are chosen in the same order, of several clouds at once."""
    clouds = np.random.default_rng(seed).normal(size=(3, 150, 3)).astype(np.float32)
    expected = [_slowly(cloud.astype(np.float64).tolist(), 60) for cloud in clouds]
    assert farthest_points(clouds, 60).tolist() == expected
    assert farthest_points(clouds[1:2], 60).tolist() == expected[1:2]


def _slowly(cloud: list[list[float]], count: int) -> list[int]:
    away, chosen = [math.inf] * len(cloud), [0]
    while len(chosen) < count:
        away = [min(a, math.dist(point, cloud[chosen[-1]])) for a, point in zip(away, cloud, strict=True)]
        chosen.append(max(range(len(cloud)), key=lambda i: away[i]))
    return chosen


def test_farthest_points_of_a_real_cloud(real_files: Path) -> None:
    """Of a published cloud of 8,192 points, the same as a slow loop chooses."""
    cloud = read_point(real_files / "point_airplane.pt").xyz_N3
    assert farthest_points(cloud[None], 64).tolist() == [_slowly(cloud.astype(np.float64).tolist(), 64)]


def test_farthest_points_of_few_and_of_equal_points() -> None:
    """Fewer points than are asked for come again; equal clouds give the first point over and over."""
    line = np.array([[[0, 0, 0], [1, 0, 0], [0.4, 0, 0]]], np.float32)
    assert farthest_points(line, 5).tolist() == [[0, 1, 2, 0, 0]]
    assert farthest_points(np.zeros((2, 4, 3), np.float32), 3).tolist() == [[0, 0, 0]] * 2


def test_surface_samples_lie_on_the_mesh_in_proportion_to_area() -> None:
    """On a 1 × 2 × 4 box every face gets its share of points, all of them on it."""
    box = trimesh.creation.box((1.0, 2.0, 4.0))
    points = sample_surface(np.asarray(box.vertices), np.asarray(box.faces), 2800)
    half = np.array([0.5, 1.0, 2.0])
    on_face = np.isclose(np.abs(points), half, atol=1e-12)
    assert on_face.any(axis=1).all()
    assert (np.abs(points) <= half + 1e-12).all()
    # Areas of the pairs of faces across x, y and z: 16, 8, 4 of 28.
    np.testing.assert_allclose(on_face.sum(axis=0), [1600, 800, 400], atol=4)


def test_surface_samples_are_even_within_a_triangle() -> None:
    """The sample's moments are those of the uniform distribution, closer than chance gives."""
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points = sample_surface(triangle, np.array([[0, 1, 2]]), 2000)[:, :2]
    np.testing.assert_allclose(points.mean(axis=0), 1 / 3, atol=2e-3)
    np.testing.assert_allclose(np.cov(points.T), [[1 / 18, -1 / 36], [-1 / 36, 1 / 18]], atol=1e-3)


def test_a_mesh_without_area_is_refused() -> None:
    """Faces that are all degenerate have no surface to sample."""
    with pytest.raises(ValueError, match="no surface"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 10)
