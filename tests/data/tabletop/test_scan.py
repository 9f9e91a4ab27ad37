"""The surface point cloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from data.tabletop.objects import draw_object
from data.tabletop.scan import scan, write_scan
from data.tabletop.scene import rotation


def _own_coordinates(spec: object, points: np.ndarray) -> np.ndarray:
    from data.tabletop.objects import ObjectSpec

    assert isinstance(spec, ObjectSpec)
    return (points - points.mean(axis=0)) @ rotation((0, 0, 1), spec.yaw)


def test_points_of_a_cube_lie_on_its_faces_in_equal_shares() -> None:
    """Area-true sampling puts a sixth of the points on each face, within the noise of sampling."""
    spec = draw_object("cork", "cube", index=0, seed=0)
    own = _own_coordinates(spec, scan(spec, count=6000))
    face = np.argmax(np.abs(own), axis=1) * 2 + (own[np.arange(6000), np.argmax(np.abs(own), axis=1)] > 0)
    np.testing.assert_allclose(np.bincount(face, minlength=6), 1000, atol=120)
    assert np.abs(np.abs(own).max(axis=1) - spec.size / 2).max() < 6e-3


def test_points_of_a_sphere_scatter_as_the_material_scatters_light() -> None:
    """The spread about the radius is roughness and scanner noise together; stone is rougher than wood."""
    spread = {}
    for material in ("wooden", "stone", "cork"):
        spec = draw_object(material, "sphere", index=0, seed=0)
        own = scan(spec, count=4000).astype(np.float64)
        own -= own.mean(axis=0)
        spread[material] = np.std(np.linalg.norm(own, axis=1))
    assert 1e-4 < spread["wooden"] < spread["stone"] < spread["cork"] < 2e-3


def test_the_file_holds_the_points_and_is_the_same_every_time(tmp_path: Path) -> None:
    """Equal objects give equal bytes of a binary PLY file of finite float32 points, standing on the table."""
    spec = draw_object("glass", "torus", index=0, seed=0)
    write_scan(spec, tmp_path / "a.ply", count=500)
    write_scan(spec, tmp_path / "b.ply", count=500)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    points = np.stack([vertex["x"], vertex["y"], vertex["z"]], axis=1)
    assert points.dtype == np.float32
    assert np.array_equal(points, scan(spec, count=500))
    assert np.ptp(points[:, 2]) == pytest.approx(2 * spec.half_height, rel=0.1)
    assert points[:, 2].min() == pytest.approx(0, abs=2e-3)
