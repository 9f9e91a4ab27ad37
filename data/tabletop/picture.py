"""The photograph of an object standing on the table: PNG, 8-bit sRGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.scene import frame_camera, upright
from data.tabletop.shading import draw_setting, luminance, photograph, to_srgb

SHADOW_RAYS = 5


def write_picture(spec: ObjectSpec, solid: Any, path: Path, *, side: int) -> None:
    """Write the photograph of an object, `side` pixels square."""
    Image.fromarray(take_picture(spec, solid, side=side)).save(path, format="PNG", compress_level=3)


def take_picture(spec: ObjectSpec, solid: Any, *, side: int) -> np.ndarray:
    """The photograph, uint8 [side, side, 3], from a random side, in random light, on a random table."""
    rng = random_of(spec, "image")
    azimuth = float(rng.uniform(0, 2 * np.pi))
    setting = draw_setting(rng, azimuth)
    body = upright(spec, solid)
    aim_3 = body.centre_3 + (rng.uniform(-0.12, 0.12, 3) * spec.size).astype(np.float32)
    camera = frame_camera(
        aim_3,
        span=float(body.reach * rng.uniform(2.4, 3.6)),
        azimuth=azimuth,
        elevation=float(rng.uniform(0.28, 0.85)),
        width=side,
        height=side,
        view_angle=0.5,
    )
    linear_HW3 = photograph(body, setting, camera, soft=SHADOW_RAYS)
    # The camera's own metering: the mean brightness of the scene becomes a middle grey, more or less.
    exposure = float(rng.uniform(0.85, 1.15)) * (0.24 / float(luminance(linear_HW3).mean())) ** 0.6
    noise_HW3 = rng.standard_normal(linear_HW3.shape, np.float32)
    grainy_HW3 = (
        linear_HW3 + np.sqrt(np.maximum(linear_HW3, 0)) * np.float32(0.006) * noise_HW3
    )  # photon noise
    return to_srgb(grainy_HW3, exposure=exposure)
