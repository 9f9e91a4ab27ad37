"""Event recordings as films, for people: equal spans of time, in the colours of `event.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.readers.payload import Bytes, Events
from data.render.canvas import SIZE, shrink
from data.render.event import FULL_PERCENTILE
from data.signal.events import compact, histogram


def event_frames(events: Events, *, frames: int) -> list[Bytes]:
    """`frames` pictures uint8[H, W, 3] of equal spans of time, the earliest first, on one scale.

    On white: growing brightness is red, fading brightness blue, both together dark. A bin without an event is
    white.
    """
    fitted = compact(events, bin_size=max(1, round(min(events.width, events.height) / SIZE)))
    t_us_N = fitted.t_us_N
    first, last = (int(t_us_N.min()), int(t_us_N.max())) if len(t_us_N) else (0, 0)
    inner = np.linspace(first, last, frames + 1)[1:-1]
    bin_N = np.searchsorted(inner, t_us_N, side="right")
    counts_FHW2 = np.stack([histogram(_only(fitted, bin_N == number)) for number in range(frames)])
    touched = counts_FHW2[counts_FHW2 > 0]
    full = float(np.percentile(touched, FULL_PERCENTILE)) if len(touched) else 1.0
    strength_FHW2 = np.sqrt(np.clip(counts_FHW2 / full, 0, 1))
    fading_FHW, growing_FHW = strength_FHW2[..., 0], strength_FHW2[..., 1]
    light_FHW3 = 1 - np.stack([fading_FHW, np.maximum(fading_FHW, growing_FHW), growing_FHW], axis=-1)
    return [shrink(np.rint(255 * light_HW3).astype(np.uint8)) for light_HW3 in light_FHW3]


def _only(events: Events, kept_N: np.typing.NDArray[np.bool_]) -> Events:
    return replace(
        events,
        x_N=events.x_N[kept_N],
        y_N=events.y_N[kept_N],
        t_us_N=events.t_us_N[kept_N],
        polarity_N=events.polarity_N[kept_N],
    )
