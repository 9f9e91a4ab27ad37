"""The event camera."""

from __future__ import annotations

import numpy as np
import pytest

from data.tabletop.events import DARK, crossings, film_events, pack_events
from data.tabletop.objects import draw_object


def test_a_ramp_fires_at_even_steps() -> None:
    """A pixel whose logarithm climbs by 1 in 1,000 µs at threshold 0.25 fires four times, 250 µs apart."""
    log = np.zeros((3, 1, 2))
    log[1:, 0, 1] = (1.0, 0.2)
    x, y, t, polarity = crossings(log, np.array([0.0, 1000.0, 2000.0]), np.full((1, 2), 0.25))
    assert x.tolist() == [1] * 7
    assert y.tolist() == [0] * 7
    assert t[:4].tolist() == [250, 500, 750, 1000]
    assert t[4:].tolist() == pytest.approx([1312, 1625, 1937], abs=1)
    assert polarity.tolist() == [True] * 4 + [False] * 3


def test_events_add_up_to_the_change_of_light() -> None:
    """At every pixel, thresholds times signed events are within a threshold of the logarithm's change."""
    rng = np.random.default_rng(0)
    log = np.cumsum(rng.normal(0, 0.3, (9, 6, 5)), axis=0)
    threshold = rng.uniform(0.1, 0.4, (6, 5))
    x, y, t, polarity = crossings(log, np.arange(9) * 100.0, threshold)
    total = np.zeros((6, 5))
    np.add.at(total, (y, x), np.where(polarity, 1, -1))
    assert (np.abs(total * threshold - (log[-1] - log[0])) < threshold).all()
    assert t.min() >= 0
    assert t.max() <= 800


def test_each_event_lies_where_the_light_crosses() -> None:
    """At an event's time the interpolated logarithm is a whole number of thresholds from where it started."""
    rng = np.random.default_rng(1)
    log = np.cumsum(rng.normal(0, 0.5, (6, 1, 1)), axis=0)
    times = np.arange(6) * 100_000.0
    _, _, t, polarity = crossings(log, times, np.full((1, 1), 0.2))
    level = np.interp(np.sort(t), times, log[:, 0, 0]) - log[0, 0, 0]
    np.testing.assert_allclose(level / 0.2, np.round(level / 0.2), atol=1e-3)
    assert len(t) == len(polarity) > 3


def test_the_file_is_the_n_caltech101_layout() -> None:
    """Five bytes: x, y, then polarity in the highest bit of 24 and microseconds in the rest, big-endian."""
    packed = pack_events(
        np.array([3, 255]), np.array([200, 0]), np.array([0x123456, 5]), np.array([True, False])
    )
    assert packed == bytes([3, 200, 0x92, 0x34, 0x56, 255, 0, 0, 0, 5])


@pytest.mark.parametrize(("column", "value"), [("x", 256), ("y", -1), ("t", 1 << 23)])
def test_what_does_not_fit_the_layout_is_refused(column: str, value: int) -> None:
    """Nothing wraps around silently."""
    columns = {"x": np.array([0]), "y": np.array([0]), "t": np.array([0]), "polarity": np.array([True])}
    columns[column] = np.array([value])
    with pytest.raises(ValueError, match=f"event {column}"):
        pack_events(**columns)


def test_a_still_scene_raises_noise_only_and_time_runs_forward() -> None:
    """Without change there are about 0.1 events per pixel and second; with it many more, sorted by time."""
    spec = draw_object("glass", "cube", index=0, seed=0)
    still = np.full((4, 64, 64), 0.5, np.float32)
    x, _, t, _ = film_events(spec, still, seconds=1)
    assert 0.06 * 64 * 64 < len(x) < 0.14 * 64 * 64
    moving = still.copy()
    moving[2:, :, 32:] = 0.1
    x, y, t, polarity = film_events(spec, moving, seconds=1)
    assert (np.diff(t) >= 0).all()
    expected = np.log((0.5 + DARK) / (0.1 + DARK)) / 0.25 * 32 * 64
    assert (x >= 32).sum() == pytest.approx(expected, rel=0.2)
    assert polarity[(x >= 32) & (t > 250_000) & (t < 500_000)].mean() < 0.05
    assert y.max() < 64
