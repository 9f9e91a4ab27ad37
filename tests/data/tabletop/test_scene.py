"""Cameras and ray casting."""

from __future__ import annotations

import numpy as np
import pytest

from data.tabletop.objects import SHAPES, Shape, draw_object
from data.tabletop.scene import (
    FAR,
    Body,
    cast,
    frame_camera,
    is_blocked,
    normals,
    pixel_centres,
    rays,
    rotation,
    solid_of,
    table_distance,
    upright,
)
from data.tabletop.shapes import dot, f32, normals_at, pick, put, row_by_row, spread, turned, unit


def test_rays_meet_a_ball_where_the_quadratic_formula_says() -> None:
    """Distances to the triangulated ball agree with those to the true ball to a thousandth of its size."""
    spec = draw_object("steel", "sphere", index=0, seed=0)
    body = upright(spec, solid_of(spec))
    rng = np.random.default_rng(0)
    origins = f32(unit(f32(rng.standard_normal((500, 3)))) * 0.4 + body.centre_3)
    towards = unit(f32(body.centre_3 - origins + rng.normal(0, 0.02, (500, 3))))
    along = dot(body.centre_3 - origins, towards)
    gap = dot(body.centre_3 - origins, body.centre_3 - origins) - along**2
    inside = gap < (0.97 * spec.radius) ** 2
    expected = along - np.sqrt(np.maximum(spec.radius**2 - gap, 0))
    found = cast(body, origins, towards)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3 * spec.size)
    assert np.all(found[gap > spec.radius**2] == FAR)


@pytest.mark.parametrize("shape", SHAPES)
def test_true_normals_point_out_and_agree_with_the_triangles(shape: Shape) -> None:
    """At points that rays hit, the formula's normal faces the ray, has unit length and fits the surface."""
    spec = draw_object("stone", shape, index=2, seed=0)
    body = Body(spec, solid_of(spec), rotation((1, 2, 3), 0.7), f32([0.1, -0.2, 0.3]))
    camera = frame_camera(
        body.centre_3, span=0.2, azimuth=1.0, elevation=0.6, width=80, height=80, view_angle=0.5
    )
    towards = rays(camera, *pixel_centres(camera))
    eyes = np.broadcast_to(camera.eye_3, towards.shape)
    distance = cast(body, eyes, towards)
    hit = distance < FAR
    assert 0.05 < hit.mean() < 0.9
    points = eyes[hit] + towards[hit] * distance[hit, None]
    normal = normals(body, points)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    assert (dot(normal, towards[hit]) < 0.05).mean() > 0.99
    # Stepping out along the normal leaves the object, stepping in enters it.
    step = f32(2e-3)
    assert (~is_blocked(body, points + normal * step, f32(camera.eye_3 - body.centre_3) / 10)).mean() > 0.97
    inward = cast(body, points - normal * step, -normal)
    assert (inward < FAR).mean() > 0.98


def test_shadow_rays_that_cannot_meet_the_object_are_not_cast() -> None:
    """Skipping them gives the same answer as the geometry of a ball and its shadow."""
    spec = draw_object("rubber", "sphere", index=0, seed=0)
    body = upright(spec, solid_of(spec))
    light = f32([0, 0, 1])
    table = f32([[0, 0, 0], [0.9 * spec.radius, 0, 0], [1.1 * spec.radius, 0, 0], [1, 1, 0]])
    assert is_blocked(body, table, light).tolist() == [True, True, False, False]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ray_is_blocked_where_it_has_a_distance(shape: Shape) -> None:
    """Points inside, on and around the object; the shortcut that finds no distance answers as the other."""
    spec = draw_object("steel", shape, index=0, seed=0)
    body = upright(spec, solid_of(spec))
    points = f32(np.random.default_rng(1).uniform(-1, 1, (2000, 3)) * spec.size + body.centre_3)
    light = unit(f32([[0.3, -0.4, 0.8]]))[0]
    blocked = is_blocked(body, points, light)
    assert 0 < blocked.sum() < len(points)
    np.testing.assert_array_equal(blocked, cast(body, points, np.broadcast_to(light, points.shape)) < FAR)


def test_a_camera_sees_its_target_in_the_middle_and_its_span_at_the_borders() -> None:
    """The ray through the middle meets the target; those at the borders pass half the span beside it."""
    target = f32([0.3, 0.1, 0.2])
    camera = frame_camera(target, span=0.4, azimuth=0.3, elevation=0.0, width=64, height=64, view_angle=0.5)
    middle, left = rays(camera, f32([32, 0]), f32([32, 32]))
    distance = np.linalg.norm(target - camera.eye_3)
    np.testing.assert_allclose(camera.eye_3 + middle * distance, target, atol=1e-6)
    meets = camera.eye_3 + left * (distance / float(left @ middle))
    assert np.linalg.norm(meets - target) == pytest.approx(0.2, rel=1e-5)


def test_the_table_is_met_only_by_rays_that_fall() -> None:
    """A ray that drops half a metre per metre from one metre up meets the table after √5 metres."""
    towards = unit(f32([[1, 0, -0.5], [1, 0, 0], [0, 0, 1]]))
    found = table_distance(np.broadcast_to(f32([0, 0, 1]), (3, 3)), towards)
    assert found[0] == pytest.approx(np.sqrt(5), rel=1e-6)
    assert np.all(found[1:] == FAR)


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_vectors_in_columns_have_the_bits_of_vectors_in_rows(count: int) -> None:
    """However they lie in memory, sums and products are those of NumPy's own expressions."""
    rng = np.random.default_rng(0)
    rows, others = (f32(rng.standard_normal((count, 3))) for _ in range(2))
    columns, vector = np.asfortranarray(rows), f32([0.3, -0.4, 0.8])
    matrix = rotation((1, 2, 3), 0.7)
    for each in (rows, columns):
        np.testing.assert_array_equal(turned(each, matrix), rows @ matrix)
        np.testing.assert_array_equal(turned(each, matrix.T), rows @ matrix.T)
        np.testing.assert_array_equal(dot(each, vector), rows @ vector)
        np.testing.assert_array_equal(dot(each, others), np.einsum("nd,nd->n", rows, others))
        np.testing.assert_array_equal(row_by_row(each), rows)
        assert row_by_row(each).flags.c_contiguous
        for shape in SHAPES:
            spec = draw_object("stone", shape, index=2, seed=0)
            np.testing.assert_array_equal(normals_at(spec, each / 10), normals_at(spec, rows / 10))
    np.testing.assert_array_equal(spread(vector, rows[:, 0]), rows[:, :1] * vector)


def test_vectors_are_picked_and_put_by_place() -> None:
    """As by an index; a single vector stands for all."""
    columns = np.asfortranarray(f32(np.arange(12).reshape(4, 3)))
    places = np.array([2, 0])
    np.testing.assert_array_equal(pick(columns, places), columns[places])
    np.testing.assert_array_equal(pick(columns[:1], np.array([3, 1])), columns[[0, 0]])
    put(columns, places, f32([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(columns[:3], [[4, 5, 6], [3, 4, 5], [1, 2, 3]])


def test_rays_of_one_eye_need_one_origin() -> None:
    """Distances to object and table are those of an origin for each ray."""
    spec = draw_object("steel", "torus", index=0, seed=0)
    body = upright(spec, solid_of(spec))
    camera = frame_camera(
        body.centre_3, span=0.2, azimuth=1.0, elevation=0.6, width=40, height=30, view_angle=0.5
    )
    towards = rays(camera, *pixel_centres(camera))
    eye, eyes = camera.eye_3[None], np.tile(camera.eye_3, (len(towards), 1))
    np.testing.assert_array_equal(cast(body, eye, towards), cast(body, eyes, towards))
    np.testing.assert_array_equal(table_distance(eye, towards), table_distance(eyes, towards))
