"""Decides whether columns beside coordinates are colours, and converts them to 8 bits."""

from __future__ import annotations

import numpy as np

from data.readers.payload import AnyArray, Bytes

NORMAL_TOLERANCE = 0.01  # of a normal's length, for rounding in files
NORMAL_SHARE = 0.99  # of the points: in some files a few have none


def named_colours(columns_N3: AnyArray) -> Bytes | None:
    """uint8[N, 3] of columns named as colours: bytes, 0 … 1, 0 … 255 or 0 … 65535; None for other values.

    16-bit colours become value / 257, rounded.
    """
    if not len(columns_N3):
        return None
    if columns_N3.dtype == np.uint8:
        return np.ascontiguousarray(columns_N3)
    wide_N3 = columns_N3.astype(np.float64)
    low, high = wide_N3.min(), wide_N3.max()
    if not (low >= 0 and high <= 65535):  # NaN fails too
        return None
    whole = columns_N3.dtype.kind in "ui" or _are_whole(wide_N3)
    if high > 255 and not whole:
        return None
    if columns_N3.dtype == np.uint16 or high > 255:
        scale = 1 / 257
    else:
        scale = 255.0 if high <= 1 and columns_N3.dtype.kind == "f" else 1.0
    return np.rint(wide_N3 * scale).astype(np.uint8)


def as_colours(columns_N3: AnyArray) -> Bytes | None:
    """uint8[N, 3] of unnamed columns, if they can only be colours; else None.

    Colours are: bytes; integers from 0 to 255 of which one is above 1; and fractions from 0 to 1, unless they
    are normals (of length one).
    """
    if columns_N3.ndim != 2 or columns_N3.shape[1] != 3 or not len(columns_N3):
        return None
    if columns_N3.dtype == np.uint8:
        return np.ascontiguousarray(columns_N3)
    wide_N3 = columns_N3.astype(np.float64)
    if not (wide_N3.min() >= 0 and wide_N3.max() <= 255) or are_normals(wide_N3):
        return None
    whole, up_to_one = _are_whole(wide_N3), wide_N3.max() <= 1
    if whole == up_to_one:  # zeros and ones, or fractions above one: ambiguous
        return None
    return np.rint(wide_N3 * (255.0 if up_to_one else 1.0)).astype(np.uint8)


def are_normals(columns_N3: AnyArray) -> bool:
    """Whether nearly all rows are of length one."""
    lengths_N = np.linalg.norm(columns_N3.astype(np.float64), axis=1)
    return bool((np.abs(lengths_N - 1) < NORMAL_TOLERANCE).mean() >= NORMAL_SHARE)


def _are_whole(wide_N3: AnyArray) -> bool:
    return bool((wide_N3 == np.rint(wide_N3)).all())
