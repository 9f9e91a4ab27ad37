"""Checks common to all readers of event streams: numeric, on the sensor, within limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Events

MAX_EVENTS = 10_000_000


def checked_events(
    path: Path, x_N: AnyArray, y_N: AnyArray, t_N: AnyArray, p_N: AnyArray, *, sensor: tuple[int, int]
) -> Events:
    """The columns as `Events` of a sensor of (width, height) pixels. Raises `SampleError` with the reason."""
    width, height = sensor
    if not len(x_N):
        raise SampleError(f"{path}: contains no events; record or fetch it again")
    if len(x_N) > MAX_EVENTS:
        raise too_many(path, len(x_N))
    if any(column.dtype.kind not in "buif" for column in (x_N, y_N, t_N, p_N)):
        raise SampleError(f"{path}: its events are not numeric; save numeric x, y, t and p")
    inside = x_N.min() >= 0 and x_N.max() < width and y_N.min() >= 0 and y_N.max() < height
    if not inside:  # also for NaN
        outside_N = ~((x_N >= 0) & (x_N < width) & (y_N >= 0) & (y_N < height))
        n = int(outside_N.argmax())
        raise SampleError(
            f"{path}: {int(outside_N.sum()):,} events lie outside the {width} × {height} sensor, the first "
            f"is number {n} at ({x_N[n]}, {y_N[n]}); correct it or fetch it again"
        )
    if any(column.dtype.kind == "f" and (column != np.rint(column)).any() for column in (x_N, y_N)):
        raise SampleError(
            f"{path}: its x or y are fractions of a pixel; save x, y, t, p in this order, in whole pixels"
        )
    if not (t_N.min() >= -(2**53) and t_N.max() <= 2**53):  # also for NaN
        raise SampleError(
            f"{path}: contains times that are not finite microseconds; correct them or fetch it again"
        )
    if p_N.dtype.kind != "b" and not ((p_N == 0) | (p_N == 1) | (p_N == -1)).all():
        raise SampleError(
            f"{path}: contains polarities other than 0, 1 and −1; correct them or fetch it again"
        )
    return Events(
        x_N=x_N.astype(np.uint16),
        y_N=y_N.astype(np.uint16),
        t_us_N=t_N.astype(np.int64),
        polarity_N=p_N > 0,
        width=width,
        height=height,
    )


def too_many(path: Path, count: int) -> SampleError:
    """The error for more than `MAX_EVENTS` events."""
    return SampleError(f"{path}: {count:,} events are more than {MAX_EVENTS:,}; cut the recording")
