"""Thermal pictures as grey pictures: between robust limits, which the caller can ask for and record."""

from __future__ import annotations

import numpy as np

from data.readers.payload import Bytes, ThermalPicture
from data.render.canvas import SIZE, shrink, to_byte

TAIL_PERCENT = 0.1  # of the pixels at each end that may saturate: dead pixels and glints
LEAST_SPAN = {"kelvin": 5.0, "counts": 1.0}  # else an even scene would be drawn as its sensor's noise


def heat_picture(picture: ThermalPicture, *, size: int = SIZE) -> Bytes:
    """Warm is bright, uint8[H, W, 3] with equal channels, scaled between `heat_limits`.

    A larger picture is reduced to `size` pixels on its short side.
    """
    low, high = heat_limits(picture)
    grey_HW = to_byte(picture.values_HW, low=low, high=high)
    return np.repeat(shrink(grey_HW, size)[:, :, None], 3, axis=2)


def heat_limits(picture: ThermalPicture) -> tuple[float, float]:
    """The values drawn black and white, in the picture's unit.

    The percentiles `TAIL_PERCENT` and 100 − `TAIL_PERCENT`, widened around their middle to `LEAST_SPAN`.
    """
    low, high = (float(v) for v in np.percentile(picture.values_HW, (TAIL_PERCENT, 100 - TAIL_PERCENT)))
    lacking = max(0.0, LEAST_SPAN[picture.unit] - (high - low))
    return low - lacking / 2, high + lacking / 2
