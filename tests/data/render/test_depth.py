"""Shaded depth views: geometry, occlusion, light and colour."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import Bytes, Floats, Points
from data.render import depth
from data.render.canvas import SIZE
from data.render.depth import AZIMUTHS_DEG, LIGHT, camera, depth_views, splat_radius


def sphere(count: int = 8192) -> Floats:
    """Points evenly on the unit sphere (Fibonacci lattice)."""
    i = np.arange(count) + 0.5
    z, around = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    return np.stack([np.sqrt(1 - z**2) * np.cos(around), np.sqrt(1 - z**2) * np.sin(around), z], 1).astype(
        np.float32
    )


def drawn(view: Bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    filled: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (view != 255).any(axis=2)
    return filled


@pytest.mark.parametrize("azimuth", AZIMUTHS_DEG)
def test_cameras_are_rotations_that_look_down_from_25_degrees(azimuth: float) -> None:
    """The axes are orthonormal and right-handed, up stays up, and the viewer is above the table."""
    axes = camera(azimuth).astype(np.float64)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[1] @ (0, 0, 1) == pytest.approx(np.cos(np.radians(25)))
    assert axes[2] @ (0, 0, 1) == pytest.approx(np.sin(np.radians(25)))


def test_a_sphere_is_a_filled_disc_of_its_size() -> None:
    """A sphere covers the disc of its radius without holes, widened by the splats, from all sides."""
    views = depth_views(Points(sphere()))
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    away = np.hypot(rows, columns)
    for view in views:
        assert drawn(view)[away < depth.SCALE].all()
        assert not drawn(view)[away > depth.SCALE + splat_radius(8192) + 1.5].any()


def test_the_light_falls_by_lamberts_law() -> None:
    """On a sphere, whose normals are known, shading follows normal · light within a few grey levels."""
    view = depth_views(Points(sphere(20_000)))[0][:, :, 0].astype(float)
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    right, up = columns / depth.SCALE, -rows / depth.SCALE
    inside = np.hypot(right, up) < 0.8  # the rim is smoothed
    front = np.sqrt(np.maximum(0, 1 - right**2 - up**2))
    lambert = (right * LIGHT[0] + up * LIGHT[1] + front * LIGHT[2]).clip(0)
    near = depth.FAR_SHADE + (1 - depth.FAR_SHADE) * (front + 1) / 2
    expected = 0xC8 * (depth.AMBIENT + (1 - depth.AMBIENT) * lambert) * near
    assert np.abs(view - expected)[inside].mean() < 4
    assert np.corrcoef(view[inside], expected[inside])[0, 1] > 0.97
    assert np.linalg.norm(LIGHT) == pytest.approx(1, abs=0.01)


def test_the_nearest_surface_wins() -> None:
    """A red ball in front of a blue wall hides it from its own side, and is hidden from behind."""
    ball = sphere(4000) * np.float32(0.3)
    toward = camera(AZIMUTHS_DEG[0])
    sideways = np.stack(np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 120)), -1).reshape(-1, 2)
    wall = (sideways @ toward[:2] - 0.5 * toward[2]).astype(np.float32)
    colours = np.repeat(np.array([[255, 0, 0], [0, 0, 255]], np.uint8), (len(ball), len(wall)), axis=0)
    front, _, back, _ = depth_views(Points(np.concatenate([ball, wall]), colours))
    red_in_front, red_behind = (((v[:, :, 0] > v[:, :, 2]) & drawn(v)).sum() for v in (front, back))
    assert red_in_front > 1500
    assert red_behind < red_in_front / 2


def test_turning_the_cloud_turns_the_views() -> None:
    """The views are a quarter turn apart: a cloud turned by 90° about z gives the same pictures, one on."""
    cloud = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32) * np.array(
        [1, 0.5, 0.3], np.float32
    )
    turned = cloud @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)  # x → y
    before, after = depth_views(Points(cloud)), depth_views(Points(turned))
    differences = [np.abs(before[i].astype(int) - after[(i + 1) % 4]).mean() for i in range(4)]
    assert max(differences) < 3  # rounding at pixel borders
    assert np.abs(before[0].astype(int) - after[0]).mean() > 10


def test_place_size_and_order_do_not_matter() -> None:
    """Moving, scaling by a power of two and shuffling a cloud give the same picture."""
    cloud = sphere(2048) * np.array([1, 0.7, 0.4], np.float32)
    first = depth_views(Points(cloud))
    shuffled = np.random.default_rng(0).permutation(len(cloud))
    for other in (depth_views(Points(cloud[shuffled] * 8)), depth_views(Points(cloud + np.float32(0.5)))):
        assert all(np.abs(a.astype(int) - b).mean() < 0.5 for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("count", [16, 200, 300_000])
def test_sparse_and_dense_clouds_are_drawn(count: int) -> None:
    """Few points get large splats, very many are thinned, and none falls off the picture."""
    views = depth_views(Points(sphere(count)))
    assert all(drawn(view).sum() > 100 * min(count, 300) / 4 for view in views)
    border = np.ones((SIZE, SIZE), bool)
    border[2:-2, 2:-2] = False
    assert not any(drawn(view)[border].any() for view in views)


@pytest.mark.parametrize(("count", "scale"), [(16, (1, 1, 1)), (60, (1, 0.01, 0.01)), (3000, (0.2, 1, 0.6))])
def test_what_points_do_not_reach_need_not_be_drawn(
    count: int, scale: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views are those of the whole square."""
    rng = np.random.default_rng(0)
    xyz = (rng.normal(size=(count, 3)) * scale).astype(np.float32)
    cloud = Points(xyz, rng.integers(0, 256, (count, 3), dtype=np.uint8))
    views = depth_views(cloud)
    monkeypatch.setattr(depth, "_reach", lambda radius: SIZE)
    np.testing.assert_array_equal(views, depth_views(cloud))
