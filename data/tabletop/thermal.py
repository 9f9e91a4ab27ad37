"""The thermal picture of an object that an infrared heater, just taken away, has warmed from one side.

16-bit TIFF in centikelvin (0.01 K), the unit of radiometric cameras such as FLIR's Lepton in T-Linear mode;
the file says so in its description.

- Surface temperature: a semi-infinite solid under a constant flux q that loses heat to the air with
  coefficient h, H. S. Carslaw, J. C. Jaeger, "Conduction of Heat in Solids" (2nd ed. 1959), §2.7: ΔT = (q/h)
  (1 - exp(β²) erfc β) with β = h √t / e and e = √(kρc) the effusivity.
- The flux follows Lambert's cosine law and is absorbed as it would be emitted (Kirchhoff), α = ε.
- The camera sees εσT⁴ + (1 - ε)σT_r⁴, T_r being the temperature of what the surface mirrors (Incropera and
  DeWitt, ch. 12), and takes it for a black body's. ε falls at grazing angles as Fresnel reflection rises
  (Schlick 1994).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.scene import (
    FAR,
    cast,
    direction,
    frame_camera,
    is_blocked,
    normals,
    pixel_centres,
    rays,
    table_distance,
    upright,
)
from data.tabletop.shapes import F32, dot, pick

WIDTH, HEIGHT = 160, 120  # pixels of a Lepton 3.5
SENSOR_NOISE = 0.05  # K, its noise-equivalent temperature difference
LOSS = 10.0  # W/(m²·K), still air and radiation together
TABLE_EFFUSIVITY, TABLE_EMISSIVITY = 500.0, 0.9  # a wooden table
MIRROR_GLOSS = 1.0  # materials with a stronger highlight mirror heat too; the others scatter it


def write_thermal(spec: ObjectSpec, solid: Any, path: Path) -> None:
    """Write the thermal picture of an object."""
    centikelvin = np.round(take_thermal(spec, solid) * 100).astype(np.uint16)
    tifffile.imwrite(
        path,
        centikelvin,
        photometric="minisblack",
        description="apparent temperature in units of 0.01 K (centikelvin)",
        metadata=None,
        software=False,
    )


def warming(flux_N: F32, *, effusivity: float, seconds: float) -> F32:
    """Kelvin by which a surface warms under a flux in W/m² (see above)."""
    beta = LOSS * math.sqrt(seconds) / effusivity
    return flux_N * np.float32((1 - math.exp(beta**2) * math.erfc(beta)) / LOSS)


def take_thermal(spec: ObjectSpec, solid: Any) -> NDArray[np.float64]:
    """Apparent temperatures in kelvin [HEIGHT, WIDTH]."""
    rng = random_of(spec, "thermal")
    azimuth = float(rng.uniform(0, 2 * np.pi))
    heater_3 = direction(
        azimuth + float(rng.choice((-1, 1)) * rng.uniform(0.3, 1.3)), float(rng.uniform(0.5, 0.9))
    )
    flux, seconds = float(rng.uniform(700, 1100)), float(rng.uniform(45, 90))
    room = float(rng.uniform(291, 297))
    body = upright(spec, solid)
    camera = frame_camera(
        body.centre_3 + (rng.uniform(-0.1, 0.1, 3) * spec.size).astype(np.float32),
        span=float(body.reach * rng.uniform(2.4, 3.3)),
        azimuth=azimuth,
        elevation=float(rng.uniform(0.35, 0.8)),
        width=WIDTH,
        height=HEIGHT,
        view_angle=0.5,
    )
    towards_N3 = rays(camera, *pixel_centres(camera))
    eye_13 = camera.eye_3[None]
    distance_N = cast(body, eye_13, towards_N3)
    solid_N = distance_N < FAR
    solid = np.flatnonzero(solid_N)
    on_table = np.flatnonzero(~solid_N & (table_distance(eye_13, towards_N3) < 3))

    def table_kelvin(origins_N3: F32, directions_N3: F32) -> F32:
        """The table's temperature where rays meet it: warmed where the heater reaches it."""
        points = origins_N3 + directions_N3 * table_distance(origins_N3, directions_N3)[:, None]
        lit = ~is_blocked(body, points, heater_3) * np.float32(flux * TABLE_EMISSIVITY * heater_3[2])
        # The heater is near: its beam falls off with the distance from the spot it is pointed at.
        beam = np.exp(-((np.linalg.norm(points[:, :2], axis=1) / np.float32(0.22)) ** 2))
        return room + warming(lit * beam, effusivity=TABLE_EFFUSIVITY, seconds=seconds)

    kelvin_N = np.full(len(towards_N3), room - 1.0)  # the walls
    table_N = table_kelvin(eye_13, pick(towards_N3, on_table))
    kelvin_N[on_table] = _apparent(table_N, TABLE_EMISSIVITY, room - 1.0)

    at_solid_N3 = pick(towards_N3, solid)
    points_N3 = eye_13 + at_solid_N3 * distance_N[solid, None]
    normals_N3 = normals(body, points_N3)
    outside_N3 = points_N3 + normals_N3 * np.float32(2e-4)
    lit_N = np.clip(dot(normals_N3, heater_3), 0, 1) * ~is_blocked(body, outside_N3, heater_3)
    stuff = spec.stuff
    start = room + float(rng.uniform(-0.5, 1.5))
    own_N = start + warming(
        lit_N * np.float32(flux * stuff.emissivity), effusivity=stuff.effusivity, seconds=seconds
    )
    cosine_N = np.clip(-dot(normals_N3, at_solid_N3), 0, 1)
    emissivity_N = stuff.emissivity * (1 - (1 - cosine_N) ** 5)
    mirrored_N3 = at_solid_N3 + 2 * cosine_N[:, None] * normals_N3
    mirrored_N = np.full(len(points_N3), room - 1.0)
    down_N = (table_distance(outside_N3, mirrored_N3) < 3) & (stuff.gloss >= MIRROR_GLOSS)
    down = np.flatnonzero(down_N)
    mirrored_N[down] = table_kelvin(pick(outside_N3, down), pick(mirrored_N3, down))
    kelvin_N[solid] = _apparent(own_N, emissivity_N, mirrored_N)
    kelvin_N = kelvin_N + SENSOR_NOISE * rng.standard_normal(len(kelvin_N))
    return kelvin_N.reshape(HEIGHT, WIDTH)


def _apparent(own_N: F32, emissivity: Any, mirrored: Any) -> NDArray[np.float64]:
    """The temperature of the black body that radiates as much (σ cancels out)."""
    fourth_N = (
        emissivity * own_N.astype(np.float64) ** 4 + (1 - emissivity) * np.asarray(mirrored, np.float64) ** 4
    )
    apparent: NDArray[np.float64] = fourth_N**0.25
    return apparent
