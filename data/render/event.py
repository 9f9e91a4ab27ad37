"""Renders event streams by one of four representations, which is part of the version string.

| representation | drawn as | views |
|---|---|---|
| `histogram` | counts by polarity, the default | 1 |
| `image` | ON minus OFF events | 1 |
| `voxel` | the same, in four bins of time | 4 |
| `time-surface` | how recent the last event of each polarity is | 1 |

On white: growing brightness is red, fading brightness blue, both together dark. Pictures are cropped to the
bounding box of the events (recordings of N-Caltech101 fill different parts of the sensor), and sensors much
larger than `SIZE` are binned by whole pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from data.readers.payload import Bytes, Doubles, Events, Floats
from data.render.canvas import SIZE, shrink
from data.signal.events import compact, event_image, histogram, time_surface, voxel_grid

FULL_PERCENTILE = 99.0  # of the strengths of pixels with events: drawn at full strength
BINS = 4  # of the voxel grid, each a view
TAU_US = 50_000.0  # decay of the time surface; recordings of benchmarks last 50 to 300 ms

EventRepresentation: TypeAlias = Literal["histogram", "image", "voxel", "time-surface"]


def polarity_histogram(events: Events) -> list[Bytes]:
    """One uint8[H, W, 3]: all events counted per pixel and polarity.

    Strength is the square root of the count (counts scatter like a Poisson variable's; the root evens their
    variance), full at the 99th percentile of the touched pixels.
    """
    return [_draw(_root(histogram(_fitted(events))))]


def signed_image(events: Events) -> list[Bytes]:
    """One uint8[H, W, 3]: the event image, the root of its size, full at its 99th percentile."""
    return [_draw(_root(_by_sign(event_image(_fitted(events)).astype(np.float64))))]


def voxel_views(events: Events) -> list[Bytes]:
    """`BINS` uint8[H, W, 3], the earliest first: bins of the voxel grid like event images, on one scale."""
    signed_BHW = voxel_grid(_fitted(events), bins=BINS).astype(np.float64)
    return [_draw(strength_HW2) for strength_HW2 in _root(_by_sign(signed_BHW))]


def surface_picture(events: Events) -> list[Bytes]:
    """One uint8[H, W, 3]: the time surface, full strength at the last event, 1 / e of it `TAU_US` before."""
    return [_draw(time_surface(_fitted(events), tau_us=TAU_US))]


@dataclass(frozen=True, slots=True)
class EventDrawing:
    """How a representation is drawn, and its name in the version string of renderings."""

    version: str
    draw: Callable[[Events], list[Bytes]]


EVENT_DRAWINGS: dict[EventRepresentation, EventDrawing] = {
    "histogram": EventDrawing("polarity-histogram", polarity_histogram),
    "image": EventDrawing("event-image-1", signed_image),
    "voxel": EventDrawing(f"event-voxel{BINS}-1", voxel_views),
    "time-surface": EventDrawing(f"event-surface{TAU_US / 1000:g}ms-1", surface_picture),
}


def _fitted(events: Events) -> Events:
    return compact(events, bin_size=max(1, round(min(events.width, events.height) / SIZE)))


def _by_sign(signed: Doubles) -> Doubles:
    """Magnitudes by sign along a new last axis: fading (negative), growing (positive)."""
    return np.stack([np.maximum(-signed, 0), np.maximum(signed, 0)], axis=-1)


def _root(strength: np.typing.NDArray[np.number]) -> Floats:
    """The square root of the strength relative to `FULL_PERCENTILE`, at most 1."""
    touched = np.compress((strength > 0).ravel(), strength)  # a third of the time of strength[strength > 0]
    full = np.percentile(touched, FULL_PERCENTILE) if len(touched) else 1.0
    share: Floats = np.sqrt(strength / full).clip(0, 1).astype(np.float32)
    return share


def _draw(strength_HW2: Floats) -> Bytes:
    fading_HW, growing_HW = strength_HW2[:, :, 0], strength_HW2[:, :, 1]
    light_HW3 = 1 - np.stack([fading_HW, np.maximum(fading_HW, growing_HW), growing_HW], axis=2)
    return shrink(np.rint(255 * light_HW3).astype(np.uint8))
