"""Event streams as arrays: histogram, event image, voxel grid, time surface; in NumPy, exact to the bit.

All handle no events, a single event, and events with equal times.

Shape legend: N events, H × W pixels of the sensor, B bins of time, 2 polarities (0 fading, 1 growing).
"""

from __future__ import annotations

import numpy as np

from data.readers.payload import Events, Floats, Integers


def compact(events: Events, *, bin_size: int = 1) -> Events:
    """The same events on the smallest rectangle that holds them, in blocks of `bin_size`² pixels.

    No event is lost. Without events the sensor keeps its size, in blocks.
    """
    if bin_size == 1:
        x_N, y_N = events.x_N, events.y_N
    else:
        x_N, y_N = events.x_N // np.uint16(bin_size), events.y_N // np.uint16(bin_size)
    if len(x_N):
        left, top = x_N.min(), y_N.min()
        x_N, y_N = x_N - left, y_N - top
        width, height = int(x_N.max()) + 1, int(y_N.max()) + 1
    else:
        width, height = -(-events.width // bin_size), -(-events.height // bin_size)
    return Events(
        x_N=x_N, y_N=y_N, t_us_N=events.t_us_N, polarity_N=events.polarity_N, width=width, height=height
    )


def histogram(events: Events) -> Integers:
    """The number of events by pixel and polarity, int64[H, W, 2].

    Maqueda et al., "Event-based vision meets deep learning on steering prediction for self-driving cars"
    (CVPR 2018).
    """
    place_N = _pixels(events)
    place_N *= 2
    place_N += events.polarity_N
    return np.bincount(place_N, minlength=2 * _size(events)).reshape(events.height, events.width, 2)


def event_image(events: Events) -> Integers:
    """ON minus OFF events of each pixel, int64[H, W]: Σ p_i with p_i = ±1.

    Polarities accumulated by pixel: the "event frame" of Gallego et al., "Event-based vision: a survey"
    (IEEE TPAMI 2022).
    """
    counts_HW2 = histogram(events)
    return counts_HW2[:, :, 1] - counts_HW2[:, :, 0]


def voxel_grid(events: Events, *, bins: int) -> Floats:
    """Polarities distributed linearly to the two nearest time bins, float32[B, H, W].

    V(x, y, b) = Σ p_i max(0, 1 − |b − t*_i|) with t*_i = (B − 1)(t_i − t_first) / (t_last − t_first) and
    p_i = ±1: Zhu et al., "Unsupervised event-based learning of optical flow, depth, and egomotion"
    (CVPR 2019), equations 1–3. Where all events have the same time, t* = 0. Summed in float64.
    """
    size = _size(events)
    if not len(events.t_us_N):
        return np.zeros((bins, events.height, events.width), np.float32)
    first = events.t_us_N.min()
    span = max(int(events.t_us_N.max() - first), 1)
    scaled_N = (events.t_us_N - first) * (bins - 1)
    bin_N = scaled_N // span
    scaled_N -= bin_N * span
    later_N = scaled_N / span
    place_N = _pixels(events)
    bin_N *= size
    place_N += bin_N
    sign_N = events.polarity_N.astype(np.float64)
    sign_N *= 2
    sign_N -= 1
    later_N *= sign_N  # the later bin's share; the earlier one gets the rest
    sign_N -= later_N
    # One bin more than asked for: the last event's share of 0 falls there.
    total = np.bincount(place_N, sign_N, minlength=(bins + 1) * size)
    place_N += size
    total += np.bincount(place_N, later_N, minlength=(bins + 1) * size)
    return total[: bins * size].reshape(bins, events.height, events.width).astype(np.float32)


def time_surface(events: Events, *, tau_us: float) -> Floats:
    """exp(−age / τ) of the last event of each pixel and polarity, float32[H, W, 2].

    S(x, y, p) = exp(−(t_last − T(x, y, p)) / τ), where T is the time of the last event there and t_last that
    of the recording; 0 where none was. Lagorce et al., "HOTS: a hierarchy of event-based time-surfaces for
    pattern recognition" (IEEE TPAMI 2017), of the whole sensor at the end of the recording.
    """
    surface = np.zeros(2 * _size(events), np.float32)
    if len(events.t_us_N):
        place_N = _pixels(events)
        place_N *= 2
        place_N += events.polarity_N
        age_N = events.t_us_N.max() - events.t_us_N
        youngest = np.full(len(surface), np.iinfo(np.int64).max)
        if (age_N[1:] <= age_N[:-1]).all():
            youngest[place_N] = age_N  # for repeated indices NumPy keeps the last value
        else:
            np.minimum.at(youngest, place_N, age_N)
        seen = youngest < np.iinfo(np.int64).max
        surface[seen] = np.exp(-youngest[seen] / tau_us)
    return surface.reshape(events.height, events.width, 2)


def _pixels(events: Events) -> Integers:
    """The number of each event's pixel, row by row, int64[N]."""
    place_N = events.y_N.astype(np.int64)
    place_N *= events.width
    place_N += events.x_N
    return place_N


def _size(events: Events) -> int:
    return events.width * events.height
