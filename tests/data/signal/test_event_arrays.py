"""Representations of event streams against loops that follow their formulas event by event."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data.readers.payload import Events
from data.signal.events import compact, event_image, histogram, time_surface, voxel_grid

WIDTH, HEIGHT = 20, 15


def stream(x: list[int], y: list[int], t: list[int], p: list[bool]) -> Events:
    return Events(
        np.array(x, np.uint16),
        np.array(y, np.uint16),
        np.array(t, np.int64),
        np.array(p, bool),
        WIDTH,
        HEIGHT,
    )


def random_stream(count: int, seed: int = 0, *, in_order: bool = True) -> Events:
    rng = np.random.default_rng(seed)
    t = rng.integers(1_000, 90_000, count)
    return Events(
        rng.integers(3, WIDTH, count).astype(np.uint16),
        rng.integers(2, HEIGHT - 1, count).astype(np.uint16),
        np.sort(t) if in_order else t,
        rng.random(count) < 0.6,
        WIDTH,
        HEIGHT,
    )


NONE = stream([], [], [], [])
ONE = stream([4], [7], [55], [True])
ONE_TIME = stream([4, 4, 9], [7, 7, 1], [55, 55, 55], [True, False, False])
STREAMS = [NONE, ONE, ONE_TIME, random_stream(500), random_stream(500, 1, in_order=False)]


@pytest.mark.parametrize("events", STREAMS)
def test_counts_against_counting(events: Events) -> None:
    """The histogram counts by polarity, and the event image is their difference."""
    counts = np.zeros((HEIGHT, WIDTH, 2), int)
    for x, y, growing in zip(events.x_N, events.y_N, events.polarity_N, strict=True):
        counts[y, x, int(growing)] += 1
    np.testing.assert_array_equal(histogram(events), counts)
    np.testing.assert_array_equal(event_image(events), counts[:, :, 1] - counts[:, :, 0])


@pytest.mark.parametrize("events", STREAMS)
@pytest.mark.parametrize("bins", [1, 2, 5])
def test_voxels_against_the_formula(events: Events, bins: int) -> None:
    """Each event's ±1 is shared out by max(0, 1 − |b − t*|), equation 3 of Zhu et al."""
    grid = np.zeros((bins, HEIGHT, WIDTH))
    first, last = (events.t_us_N.min(), events.t_us_N.max()) if len(events.t_us_N) else (0, 0)
    for x, y, t, growing in zip(events.x_N, events.y_N, events.t_us_N, events.polarity_N, strict=True):
        scaled = (bins - 1) * (t - first) / (last - first) if last > first else 0.0
        for b in range(bins):
            grid[b, y, x] += (1 if growing else -1) * max(0.0, 1 - abs(b - scaled))
    found = voxel_grid(events, bins=bins)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, grid, atol=1e-5)


def test_voxels_hold_every_event_whole() -> None:
    """Whatever the bins, a pixel's sum over time is its growing less its fading events."""
    events = random_stream(1000, 2)
    np.testing.assert_allclose(voxel_grid(events, bins=7).sum(axis=0), event_image(events), atol=1e-5)


@pytest.mark.parametrize("events", STREAMS)
def test_surfaces_against_the_formula(events: Events) -> None:
    """exp(−age / τ) of each pixel's and polarity's last event, zero where none was, in any order."""
    latest: dict[tuple[int, int, int], int] = {}
    for x, y, t, growing in zip(events.x_N, events.y_N, events.t_us_N, events.polarity_N, strict=True):
        place = (int(y), int(x), int(growing))
        latest[place] = max(int(t), latest.get(place, int(t)))
    expected = np.zeros((HEIGHT, WIDTH, 2))
    for place, t in latest.items():
        expected[place] = math.exp(-(max(latest.values()) - t) / 20_000)
    np.testing.assert_allclose(time_surface(events, tau_us=20_000), expected, rtol=1e-6)


def test_compact_keeps_every_event() -> None:
    """Cut to the rectangle of the events, in blocks of pixels, the histogram is that of the whole."""
    events = random_stream(300)
    cut = compact(events)
    assert (cut.width, cut.height) == (WIDTH - 3, HEIGHT - 3)
    np.testing.assert_array_equal(histogram(cut), histogram(events)[2:-1, 3:])
    blocks = histogram(compact(events, bin_size=2))
    padded = np.pad(histogram(events), ((0, 1), (0, 0), (0, 0)))
    summed = padded.reshape((HEIGHT + 1) // 2, 2, WIDTH // 2, 2, 2).sum(axis=(1, 3))
    np.testing.assert_array_equal(blocks, summed[1:7, 1:])
    assert (compact(NONE, bin_size=2).width, compact(NONE, bin_size=2).height) == (10, 8)


def test_a_million_events_repeat_to_the_bit() -> None:
    """A million events give the same bits each time, and none is lost."""
    rng = np.random.default_rng(5)
    count = 1_000_000
    events = Events(
        rng.integers(0, 640, count).astype(np.uint16),
        rng.integers(0, 480, count).astype(np.uint16),
        np.sort(rng.integers(0, 10**6, count)),
        rng.random(count) < 0.5,
        640,
        480,
    )
    assert histogram(events).sum() == count
    assert voxel_grid(events, bins=5).tobytes() == voxel_grid(events, bins=5).tobytes()
    assert time_surface(events, tau_us=3e4).tobytes() == time_surface(events, tau_us=3e4).tobytes()
