"""kb_builder.facts.events: event streams that are known, in words."""

from __future__ import annotations

import numpy as np

from data.readers.payload import Events
from kb_builder.facts.events import describe_events


def stream(x: np.ndarray, y: np.ndarray, t_us: np.ndarray, on: np.ndarray | bool, side: int = 100) -> Events:
    polarity = np.broadcast_to(np.asarray(on), x.shape)
    return Events(x.astype(np.uint16), y.astype(np.uint16), t_us.astype(np.int64), polarity, side, side)


def test_counts_rate_and_place_by_hand() -> None:
    """1,000 events in 0.5 s on one row of a 100 x 100 sensor: sparse, one per cent, wide, steady."""
    index = np.arange(1000)
    events = stream(index % 100, np.full(1000, 7), index * 500, index % 2 == 0)
    text = describe_events(events)
    assert "of 0.50 seconds with 1000 events" in text
    assert "a very sparse stream" in text
    assert "as much brightening as darkening" in text
    assert "on 1% of the sensor" in text
    assert "in a wide region" in text
    assert "very many at each pixel" in text
    assert text.endswith("steady in time.")


def test_polarity_and_bursts() -> None:
    """All of one polarity and nearly all at one end of the time are told."""
    time = np.concatenate([np.arange(900), [1_000_000]])
    text = describe_events(stream(np.arange(901) % 10, np.arange(901) // 91, time, False))
    assert "mostly darkening" in text
    assert "in bursts" in text


def test_outlines_and_filled_regions() -> None:
    """The border of a square is a thin outline, the whole square is filled."""
    y, x = np.divmod(np.arange(3600), 60)
    border = (x == 0) | (x == 59) | (y == 0) | (y == 59)
    time = np.arange(3600) * 10
    assert "thin outlines" in describe_events(stream(x[border], y[border], time[border], True))
    assert "filled with texture" in describe_events(stream(x, y, time, True))


def test_one_event() -> None:
    """One event, or all at one moment, has no rate and raises no warning."""
    one = np.zeros(1)
    assert "all at one moment" in describe_events(stream(one, one, one, True))
