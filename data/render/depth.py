"""Renders point clouds: shaded depth from four sides, by splatting into a z-buffer, in NumPy.

Shape legend: N points, H, W: pixels of the part of the view that points reach.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.readers.payload import Bytes, Floats, Integers, Points
from data.readers.points.geometry import unit_sphere
from data.render.canvas import SIZE

AZIMUTHS_DEG = (30.0, 120.0, 210.0, 300.0)  # oblique: no view looks straight at a face of a box
ELEVATION_DEG = 25.0
SCALE = 0.88 * SIZE / 2  # pixels of the unit sphere's radius; the rest is room for splats
COVER = 6.0  # splats cover the sphere's disc this many times, so that surfaces have no holes
RADII = (2, 8)  # pixels: the smallest and largest splat
GREY = 0xC8C8C8  # of clouds without colours, 0xRRGGBB
BACKGROUND = 0xFFFFFF
LIGHT = np.array((-0.45, 0.55, 0.70), np.float32)  # towards the light: right, up, to the viewer; length 1
AMBIENT, FAR_SHADE = 0.25, 0.65  # light without a lamp; how much of it is left at the far end of the sphere
DEPTH_STEPS = 2**24  # depths are kept as integers, in one number with the colour
MAX_SPLATS = 2**16  # more points than pixels: of a larger cloud every k-th is drawn


def depth_views(cloud: Points) -> list[Bytes]:
    """Four uint8[SIZE, SIZE, 3] views of a cloud, scaled into the unit sphere, z upwards, from 25° above.

    Orthographic. Points become discs of a radius that fits their density; the nearest wins. The surface is
    lit from the viewer's upper left by Lambert's law, its normals taken from the differences of the smoothed
    depth, and darkens with distance. Colours of the cloud are used where it has them. Of a cloud with more
    than `MAX_SPLATS` points, every k-th is drawn.
    """
    stride = -(-len(cloud.xyz_N3) // MAX_SPLATS)
    xyz_N3 = unit_sphere(cloud.xyz_N3[::stride])
    if cloud.rgb_N3 is None:
        colours_N = np.full(len(xyz_N3), GREY, np.int64)
    else:
        colours_N = cloud.rgb_N3[::stride].astype(np.int64) @ np.array((1 << 16, 1 << 8, 1))
    radius = splat_radius(len(xyz_N3))
    return [_view(xyz_N3 @ camera(azimuth).T, colours_N, radius) for azimuth in AZIMUTHS_DEG]


def splat_radius(count: int) -> int:
    """The radius in pixels at which `count` splats cover the unit disc about `COVER` times."""
    disc_pixels = np.pi * SCALE**2
    return int(np.clip(round(np.sqrt(COVER * disc_pixels / count / np.pi)), *RADII))


def camera(azimuth_deg: float) -> Floats:
    """Rotation float32[3, 3] whose rows are the viewer's right, up and towards-me directions."""
    around, above = np.radians(azimuth_deg), np.radians(ELEVATION_DEG)
    right = (-np.sin(around), np.cos(around), 0.0)
    me = (np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), np.sin(above))
    return np.array((right, np.cross(me, right), me), dtype=np.float32)


def _view(seen_N3: Floats, colours_N: Integers, radius: int) -> Bytes:
    """One view, uint8[SIZE, SIZE, 3]; drawn where points can reach, the rest is background."""
    column_N = np.rint(SIZE / 2 - 0.5 + SCALE * seen_N3[:, 0]).astype(np.int64)
    row_N = np.rint(SIZE / 2 - 0.5 - SCALE * seen_N3[:, 1]).astype(np.int64)
    step_N = np.rint((seen_N3[:, 2] + 1) * (DEPTH_STEPS / 2)).astype(np.int64)
    reach = _reach(radius)
    top, left = (max(0, int(place_N.min()) - reach) for place_N in (row_N, column_N))
    bottom, right = (min(SIZE, int(place_N.max()) + reach + 1) for place_N in (row_N, column_N))
    shape = bottom - top, right - left
    # Depth above colour in one integer: the maximum keeps the nearest point together with its colour.
    nearest = np.full(shape[0] * shape[1], -1, np.int64)
    np.maximum.at(nearest, (row_N - top) * shape[1] + column_N - left, step_N << 24 | colours_N)
    view_HW3 = np.full((SIZE, SIZE, 3), BACKGROUND & 0xFF, np.uint8)
    view_HW3[top:bottom, left:right] = _shade(*_splat(nearest.reshape(shape), radius), radius)
    return view_HW3


def _reach(radius: int) -> int:
    """Pixels beyond the points that count: splats reach `radius`, smoothing looks as far, differences one."""
    return 2 * radius + 1


def _splat(nearest_HW: Integers, radius: int) -> tuple[Floats, Bytes]:
    """(depth float32[H, W] towards the viewer, NaN where empty; colours uint8[H, W, 3] on the background)."""
    grown_HW = _grow(nearest_HW, radius)
    empty_HW = grown_HW < 0
    depth_HW = (grown_HW >> 24).astype(np.float32) * np.float32(2 / DEPTH_STEPS) - 1
    depth_HW[empty_HW] = np.nan
    colour_HW = np.where(empty_HW, BACKGROUND, grown_HW).astype("<u4")
    # Little-endian 0x..RRGGBB: blue comes first.
    return depth_HW, colour_HW.view(np.uint8).reshape(*grown_HW.shape, 4)[:, :, 2::-1]


def _grow(nearest_HW: Integers, radius: int) -> Integers:
    """The maximum over a disc around each pixel: rows grown sideways by each half-width, then stacked."""
    wide = [nearest_HW]
    for _ in range(radius):
        wider = wide[-1].copy()
        np.maximum(wider[:, 1:], wide[-1][:, :-1], out=wider[:, 1:])
        np.maximum(wider[:, :-1], wide[-1][:, 1:], out=wider[:, :-1])
        wide.append(wider)
    grown = wide[radius].copy()
    for dy in range(1, radius + 1):
        row = wide[int(np.sqrt(radius**2 - dy**2))]
        np.maximum(grown[dy:], row[:-dy], out=grown[dy:])
        np.maximum(grown[:-dy], row[dy:], out=grown[:-dy])
    return grown


def _shade(depth_HW: Floats, colours_HW3: Bytes, radius: int) -> Bytes:
    """Light the splats; the background stays as it is."""
    empty_HW = np.isnan(depth_HW)
    smooth_HW = _smooth(depth_HW, empty_HW, radius)
    down_HW, right_HW = np.gradient(smooth_HW * np.float32(SCALE))
    # The surface z(x, y) has the normal (−dz/dx, −dz/dy, 1); rows run downwards, so dz/dy changes its sign.
    toward_light_HW = -right_HW * LIGHT[0] + down_HW * LIGHT[1] + LIGHT[2]
    lambert_HW = (toward_light_HW / np.sqrt(right_HW**2 + down_HW**2 + 1)).clip(0, 1)
    near_HW = FAR_SHADE + (1 - FAR_SHADE) * (smooth_HW + 1) / 2
    light_HW = np.where(empty_HW, np.float32(1), (AMBIENT + (1 - AMBIENT) * lambert_HW) * near_HW)
    lit_HW3 = np.empty(colours_HW3.shape, np.uint8)
    for channel in range(3):  # one at a time: a loop over three numbers is slow
        lit_HW3[:, :, channel] = np.rint(colours_HW3[:, :, channel] * light_HW)
    return lit_HW3


def _smooth(depth_HW: Floats, empty_HW: npt.NDArray[np.bool_], radius: int) -> Floats:
    """Two box means of side 2 · radius + 1 over the filled pixels, so that discs join into a surface."""
    weight_HW = (~empty_HW).astype(np.float32)
    sum_HW = np.where(empty_HW, np.float32(0), depth_HW)
    for _ in range(2):
        weight_HW, sum_HW = _box(weight_HW, radius), _box(sum_HW, radius)
    return np.where(weight_HW > 0, sum_HW / np.maximum(weight_HW, np.float32(1e-6)), np.float32(-1))


def _box(field_HW: Floats, radius: int) -> Floats:
    """The sum over a square around each pixel, through shifted additions (zero outside)."""
    side = 2 * radius + 1
    height, width = field_HW.shape
    rows = np.pad(field_HW, ((radius, radius), (0, 0)))
    summed = rows[:height].copy()
    for shift in range(1, side):
        summed += rows[shift : shift + height]
    columns = np.pad(summed, ((0, 0), (radius, radius)))
    summed = columns[:, :width].copy()
    for shift in range(1, side):
        summed += columns[:, shift : shift + width]
    return summed
