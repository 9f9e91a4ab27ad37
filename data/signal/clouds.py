"""Point clouds as arrays: the points and colours that a point encoder takes, and the middles of its patches.

Shape legend: N points, P patches.
"""

from __future__ import annotations

import numpy as np

from data.readers.payload import AnyArray, Floats, Points
from data.readers.points.geometry import farthest_points, unit_sphere

GREY = 0.4  # the colour of clouds without colours, in the training of OpenShape


def cloud_channels(cloud: Points, *, most: int, up: str) -> Floats:
    """float32[N ≤ `most`, 6]: coordinates in the unit sphere, and colours from 0 to 1. Larger clouds are
    thinned evenly, in the order of the file.

    Clouds are read with z upwards, as for renderings; with `up` = "y", for a model with y upwards, the cloud
    is rotated about x.
    """
    picks = np.unique(np.linspace(0, len(cloud.xyz_N3) - 1, min(most, len(cloud.xyz_N3))).astype(np.int64))
    xyz_N3 = cloud.xyz_N3[picks]
    if up == "y":
        xyz_N3 = xyz_N3[:, [0, 2, 1]] * np.array((1, 1, -1), np.float32)
    if cloud.rgb_N3 is None:
        rgb_N3: Floats = np.full_like(xyz_N3, GREY)
    else:
        rgb_N3 = (cloud.rgb_N3[picks] / 255).astype(np.float32)
    return np.concatenate([unit_sphere(xyz_N3), rgb_N3], axis=1, dtype=np.float32)


def cloud_patches(cloud: Points, *, most: int, up: str, patches: int) -> list[AnyArray]:
    """`cloud_channels`, and int64[P]: which of its points are the middles of patches, farthest first."""
    channels_N6 = cloud_channels(cloud, most=most, up=up)
    return [channels_N6, farthest_points(channels_N6[None, :, :3], patches)[0]]
