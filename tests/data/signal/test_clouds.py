"""Clouds as the inputs of point encoders."""

from __future__ import annotations

import numpy as np

from data.readers.payload import Points
from data.readers.points.geometry import farthest_points
from data.signal.clouds import cloud_channels, cloud_patches


def test_clouds_are_brought_into_the_models_frame() -> None:
    """Unit sphere, y upwards by a turn about x where the model wants it, grey without colours."""
    xyz = np.array([[0, 0, 0], [0, 0, 4], [0, 2, 0]], np.float32)
    z_up, y_up = (cloud_channels(Points(xyz), most=9, up=up) for up in ("z", "y"))
    np.testing.assert_allclose(np.linalg.norm(z_up[:, :3], axis=1).max(), 1, atol=1e-6)
    np.testing.assert_allclose(y_up[:, 1], z_up[:, 2], atol=1e-6)
    np.testing.assert_allclose(y_up[:, 2], -z_up[:, 1], atol=1e-6)
    assert (z_up[:, 3:] == np.float32(0.4)).all()
    coloured = cloud_channels(Points(xyz, np.full((3, 3), 255, np.uint8)), most=9, up="z")
    assert (coloured[:, 3:] == 1).all()
    many = Points(np.random.default_rng(0).random((30_000, 3), np.float32))
    assert len(cloud_channels(many, most=10_000, up="z")) == 10_000


def test_the_middles_of_patches_are_the_farthest_points() -> None:
    """Of one cloud, as `farthest_points` finds them among the points that the encoder takes."""
    cloud = Points(np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32))
    channels, middles = cloud_patches(cloud, most=200, up="y", patches=16)
    np.testing.assert_array_equal(channels, cloud_channels(cloud, most=200, up="y"))
    np.testing.assert_array_equal(middles, farthest_points(channels[None, :, :3], 16)[0])
