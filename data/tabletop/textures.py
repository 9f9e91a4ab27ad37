"""Solid textures: the colour at a point inside a block of wood, stone or cork, and the pattern of the table.

A noise with a power spectrum 1/fᵝ, made once by filtering white noise (R. F. Voss, "Random fractal
forgeries", 1985), is laid out as a block that repeats, and looked up with trilinear interpolation; K. Perlin,
"An image synthesizer" (SIGGRAPH 1985), derives wood and stone from such a block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from data.tabletop.materials import Texture
from data.tabletop.objects import ObjectSpec
from data.tabletop.shapes import F32, f32, spread, turned

SIDE = 64  # of the block of noise, in cells; a power of two, so that `& (SIDE - 1)` is `% SIDE`


@cache
def _noise_block(falloff: float, seed: int) -> F32:
    """Noise with an amplitude spectrum f^(-falloff), zero mean, unit variance, periodic: [SIDE]³."""
    white = np.random.default_rng(seed).standard_normal((SIDE,) * 3)
    axes = [np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE)]
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
    frequency[0, 0, 0] = np.inf
    block = np.fft.irfftn(np.fft.rfftn(white) * frequency**-falloff, s=white.shape, axes=(0, 1, 2))
    return f32(block / block.std())


def noise(points_N3: F32, *, falloff: float, seed: int = 0) -> F32:
    """Noise [N] at points given in cells of the block."""
    flat = _noise_block(falloff, seed).ravel()
    floor = np.floor(points_N3)
    part = points_N3 - floor
    low = floor.astype(np.int32).astype(np.intp) & (SIDE - 1)  # of the type that indices have
    high = (low + 1) & (SIDE - 1)
    x, y, z = (
        (low[:, axis] * step, high[:, axis] * step) for axis, step in enumerate((SIDE * SIDE, SIDE, 1))
    )
    u, v, w = part.T
    planes = []
    for i in (0, 1):
        here, there = x[i] + y[0], x[i] + y[1]
        near = flat.take(here + z[0]) * (1 - w) + flat.take(here + z[1]) * w
        far = flat.take(there + z[0]) * (1 - w) + flat.take(there + z[1]) * w
        planes.append(near * (1 - v) + far * v)
    value: F32 = planes[0] * (1 - u) + planes[1] * u
    return value


def albedo(spec: ObjectSpec, local_N3: F32) -> F32:
    """Linear RGB reflectance [N, 3] of the object at points in its local coordinates (metres)."""
    points_N3 = local_N3 / np.float32(0.05 * spec.texture_scale) + np.float32(10) * f32(spec.texture_offset)
    dark_N = np.clip(_TEXTURES[spec.kind.texture](points_N3), 0, 1)
    gain = f32(spec.hue_gain)
    light, dark = (f32(colour) for colour in (spec.kind.light, spec.kind.dark))
    colour_N3: F32 = np.clip((spread(light, 1 - dark_N) + spread(dark, dark_N)) * gain, 0, 0.95)
    return colour_N3


def _grain(points_N3: F32) -> F32:
    """Wood: yearly rings about the trunk's axis, wobbling, and fine fibres along it. Units of 5 cm."""
    trunk = turned(points_N3, _TRUNK)
    wobble = noise(trunk * f32([4, 4, 1.2]), falloff=2.4)
    distance = np.hypot(trunk[:, 0] - 9.0, trunk[:, 1] - 7.0) + 0.10 * wobble
    phase = (distance * 4.5) % 1
    rings = phase**2 * np.clip((1 - phase) * 8, 0, 1)  # slowly darker through the year, then a sharp edge
    fibres = noise(trunk * f32([60, 60, 3]), falloff=1.0, seed=1)
    return f32(0.15 + 0.85 * rings + 0.13 * fibres)


def _speckle(points_N3: F32) -> F32:
    """Granite: dark grains with sharp edges among light ones, over soft clouds."""
    grains = noise(points_N3 * np.float32(26), falloff=1.0)
    clouds = noise(points_N3 * np.float32(7), falloff=2.0, seed=1)
    light_grains = np.clip((-grains - 0.9) * 3, 0, 0.28)
    return f32(0.28 + np.clip((grains - 0.7) * 4, 0, 0.75) + 0.10 * clouds - light_grains)


def _granule(points_N3: F32) -> F32:
    """Cork: pressed granules of different shades, with dark seams and pores."""
    shade = noise(points_N3 * np.float32(13), falloff=1.6)
    seams = noise(points_N3 * np.float32(20), falloff=1.4, seed=1)
    pores = noise(points_N3 * np.float32(34), falloff=0.8, seed=2)
    seam_lines = 0.35 * np.clip(1 - np.abs(seams) * 5, 0, 1)
    return f32(0.30 + 0.20 * shade + seam_lines + np.clip((pores - 1.5) * 2, 0, 0.6))


def _brushed(points_N3: F32) -> F32:
    """Metal drawn over an abrasive belt: fine lines in one direction."""
    return 0.5 + 0.35 * noise(points_N3 * f32([2, 2, 90]), falloff=0.6)


def _plain(points_N3: F32) -> F32:
    """One colour, with a trace of unevenness."""
    return 0.5 + 0.3 * noise(points_N3 * np.float32(5), falloff=2.0)


# The trunk that wooden things are cut from does not stand upright in them.
_TRUNK = np.linalg.qr(np.array([[0.9, 0.1, 0.42], [-0.2, 0.95, 0.25], [-0.38, -0.3, 0.87]]))[0].astype(
    np.float32
)

_TEXTURES: dict[Texture, Callable[[F32], F32]] = {
    "grain": _grain,
    "brushed": _brushed,
    "plain": _plain,
    "clear": _plain,
    "speckle": _speckle,
    "granule": _granule,
}


def table_pattern(points_N3: F32, offset: float) -> F32:
    """The table top's brightness [N] relative to its colour: clouds and a weave, one slice of a block."""
    slice_ = _noise_block(1.2, 2)[int(offset * SIDE)].ravel()
    place_N2 = points_N3[:, :2] * np.float32(260)
    floor = np.floor(place_N2)
    (u, v), (x, y) = (place_N2 - floor).T, floor.astype(np.int32).T.astype(np.intp) & (SIDE - 1)
    next_y = (y + 1) & (SIDE - 1)
    row, next_row = x * SIDE, ((x + 1) & (SIDE - 1)) * SIDE
    near = slice_.take(row + y) * (1 - v) + slice_.take(row + next_y) * v
    far = slice_.take(next_row + y) * (1 - v) + slice_.take(next_row + next_y) * v
    return f32(np.clip(1 + 0.11 * (near * (1 - u) + far * u), 0.5, 1.5))
