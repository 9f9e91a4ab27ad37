"""Point geometry against brute force and analytic answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

from data.readers.geometry import farthest_points, sample_surface, unit_sphere


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


def test_farthest_points_against_brute_force() -> None:
    """Each chosen point is the one with the largest distance to all chosen before it."""
    cloud = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    chosen = farthest_points(cloud, 40)
    assert len(set(chosen.tolist())) == 40
    assert chosen[0] == np.linalg.norm(cloud - cloud.mean(axis=0), axis=1).argmax()
    distances = np.linalg.norm(cloud[:, None].astype(np.float64) - cloud[None], axis=2)
    for k in range(1, 40):
        nearest = distances[:, chosen[:k]].min(axis=1)
        assert nearest[chosen[k]] == pytest.approx(nearest.max())


@pytest.mark.parametrize("seed", range(5))
def test_farthest_points_against_a_slow_loop(seed: int) -> None:
    """Point by point, in float64, the same points are chosen in the same order."""
    cloud = np.random.default_rng(seed).normal(size=(150, 3)).astype(np.float32)
    wide = cloud.astype(np.float64).tolist()
    middle = [sum(axis) / len(wide) for axis in zip(*wide, strict=True)]
    away = [math.inf] * len(wide)
    expected = [max(range(len(wide)), key=lambda i: math.dist(wide[i], middle))]
    while len(expected) < 60:
        away = [min(a, math.dist(point, wide[expected[-1]])) for a, point in zip(away, wide, strict=True)]
        expected.append(max(range(len(wide)), key=lambda i: away[i]))
    assert farthest_points(cloud, 60).tolist() == expected


def test_points_that_coincide_are_each_taken_once() -> None:
    """Where every other point lies at the same place, the rest follows in its order, and none comes twice."""
    cloud = np.repeat(np.array([[0, 0, 0], [1, 0, 0]], np.float32), (19, 1), axis=0)
    assert farthest_points(cloud, 20).tolist() == [19, *range(19)]


def test_farthest_points_of_a_small_cloud_are_all_of_it() -> None:
    """Asking for more points than there are gives each once."""
    cloud = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    assert sorted(farthest_points(cloud, 100).tolist()) == list(range(20))


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
