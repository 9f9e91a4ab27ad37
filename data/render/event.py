"""Event streams as pictures: the polarity histogram. Time is not drawn (a time surface would)."""

from __future__ import annotations

import numpy as np

from data.readers.payload import Bytes, Events, Floats
from data.render.canvas import SIZE, shrink

FULL_PERCENTILE = 99.0  # of the counts of touched pixels: the count that is drawn at full strength


def polarity_histogram(events: Events) -> Bytes:
    """All events summed per pixel on white: growing light is red, fading light blue, both together dark.

    uint8[H, W, 3], cut to the smallest rectangle that holds all events: the recordings of N-Caltech101 fill
    different parts of their sensor. Sensors much larger than `SIZE` are binned by whole pixels. Strength is
    the square root of the count (counts scatter like a Poisson variable's; the root evens their variance) and
    full at the 99th percentile of the touched pixels.
    """
    bin_size = max(1, round(min(events.width, events.height) / SIZE))
    x_N, y_N = (events.x_N, events.y_N) if bin_size == 1 else (events.x_N // bin_size, events.y_N // bin_size)
    left, top = int(x_N.min()), int(y_N.min())
    width, height = int(x_N.max()) - left + 1, int(y_N.max()) - top + 1
    # One histogram for both polarities: the number of the pixel, doubled, plus the polarity.
    place_N = ((y_N.astype(np.int32) - top) * width + (x_N - np.int32(left))) * 2 + events.polarity_N
    counts_HW2 = np.bincount(place_N, minlength=2 * width * height).reshape(height, width, 2)
    full = np.percentile(counts_HW2[counts_HW2 > 0], FULL_PERCENTILE)
    strength_HW2: Floats = np.sqrt(counts_HW2 / full).clip(0, 1).astype(np.float32)
    fading_HW, growing_HW = strength_HW2[:, :, 0], strength_HW2[:, :, 1]
    light_HW3 = 1 - np.stack([fading_HW, np.maximum(fading_HW, growing_HW), growing_HW], axis=2)
    return shrink(np.rint(255 * light_HW3).astype(np.uint8))
