"""Simulates an event camera on the rendered film, and writes the N-Caltech101 file layout.

Every pixel remembers the logarithm of the light at its last event and fires whenever the present one differs
by its threshold: P. Lichtsteiner, C. Posch, T. Delbruck, "A 128×128 120 dB 15 µs latency asynchronous
temporal contrast vision sensor", IEEE J. Solid-State Circuits 43 (2008). Between two frames the logarithm is
taken to change linearly: H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an open event camera simulator" (CoRL
2018), §3. Thresholds differ from pixel to pixel, and pixels fire at random now and then: Y. Hu, S.-C. Liu,
T. Delbruck, "v2e: from video frames to realistic DVS events" (CVPR Workshops 2021), §4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.shapes import F32

THRESHOLD = 0.25  # change of the natural logarithm of light
MISMATCH = 0.03  # standard deviation of the threshold over the pixels
DARK = 0.01  # light below which the sensor's logarithm flattens
NOISE_RATE = 0.1  # random events per pixel and second
MICROSECONDS = 1_000_000
TIME_BITS = 23

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def write_events(spec: ObjectSpec, light_FHW: F32, path: Path, *, seconds: float) -> None:
    """Write the events of a film in the N-Caltech101 layout."""
    path.write_bytes(pack_events(*film_events(spec, light_FHW, seconds=seconds)))


def film_events(spec: ObjectSpec, light_FHW: F32, *, seconds: float) -> Columns:
    """Events x, y, t (µs), polarity [N], in order of time, of linear light taken evenly over `seconds`."""
    rng = random_of(spec, "event")
    frames, height, width = light_FHW.shape
    threshold_HW = np.clip(rng.normal(THRESHOLD, MISMATCH, (height, width)), 0.5 * THRESHOLD, None)
    times_F = np.arange(frames) * (seconds * MICROSECONDS / frames)
    x, y, t, polarity = crossings(np.log(light_FHW.astype(np.float64) + DARK), times_F, threshold_HW)
    stray = int(rng.poisson(NOISE_RATE * seconds * height * width))
    x = np.concatenate([x, rng.integers(0, width, stray)])
    y = np.concatenate([y, rng.integers(0, height, stray)])
    t = np.concatenate([t, rng.integers(0, int(times_F[-1]) + 1, stray)])
    polarity = np.concatenate([polarity, rng.random(stray) < 0.5])
    # Sorted as one number each, by time, row, column and polarity: a third of the time that columns take.
    places_N = np.sort(((t * height + y) * width + x) * 2 + polarity)
    places_N, polarity = places_N >> 1, (places_N & 1).astype(bool)
    rows_N, x = np.divmod(places_N, width)
    t, y = np.divmod(rows_N, height)
    return x, y, t, polarity


def crossings(
    log_FHW: NDArray[np.float64], times_F: NDArray[np.float64], threshold_HW: NDArray[np.float64]
) -> Columns:
    """Where and when the logarithm of light, linear between frames, moves by the threshold from its last
    event.

    Times in the unit of `times_F`, rounded down to whole numbers. Not sorted.
    """
    memory_HW = log_FHW[0].copy()
    parts = []
    for before_HW, after_HW, start, end in zip(
        log_FHW[:-1], log_FHW[1:], times_F[:-1], times_F[1:], strict=True
    ):
        sign_HW = np.sign(after_HW - memory_HW)
        count_HW = np.floor(np.abs(after_HW - memory_HW) / threshold_HW).astype(np.int64)
        y, x = np.nonzero(count_HW)
        count = count_HW[y, x]
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + 1  # 1st, 2nd, … event
        y, x = np.repeat(y, count), np.repeat(x, count)
        level = memory_HW[y, x] + sign_HW[y, x] * threshold_HW[y, x] * number
        part = (level - before_HW[y, x]) / (after_HW - before_HW)[y, x]
        time = np.floor(start + np.clip(part, 0, 1) * (end - start)).astype(np.int64)
        parts.append((x, y, time, sign_HW[y, x] > 0))
        memory_HW += sign_HW * count_HW * threshold_HW
    x, y, t, polarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return x, y, t, polarity


def pack_events(
    x: NDArray[np.int64], y: NDArray[np.int64], t: NDArray[np.int64], polarity: NDArray[np.bool_]
) -> bytes:
    """Five bytes an event, big-endian: x, y, then one bit of polarity and 23 bits of microseconds.

    G. Orchard, A. Jayawant, G. Cohen, N. Thakor, "Converting static image datasets to spiking neuromorphic
    datasets using saccades" (Frontiers in Neuroscience 9, 2015). Raises ValueError for what does not fit.
    """
    for name, column, limit in (("x", x, 1 << 8), ("y", y, 1 << 8), ("t", t, 1 << TIME_BITS)):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < limit:
            raise ValueError(f"event {name} outside 0…{limit - 1}")
    tail = (polarity.astype(np.int64) << TIME_BITS) | t
    rows_N5 = np.stack([x, y, tail >> 16, (tail >> 8) & 255, tail & 255], axis=1)
    return rows_N5.astype(np.uint8).tobytes()
