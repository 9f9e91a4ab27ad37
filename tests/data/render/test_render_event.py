"""The four ways in which an event stream is drawn."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from data.readers.payload import Events
from data.render import RENDER_VERSION, EventRepresentation, render, render_version
from data.render.event import BINS, EVENT_DRAWINGS, TAU_US

WAYS: tuple[EventRepresentation, ...] = get_args(EventRepresentation)
RED, BLUE, WHITE, BLACK = [255, 0, 0], [0, 0, 255], [255] * 3, [0, 0, 0]


def stream(events: list[tuple[int, int, int, bool]]) -> Events:
    x, y, t, p = zip(*events, strict=True) if events else ((), (), (), ())
    return Events(
        np.array(x, np.uint16), np.array(y, np.uint16), np.array(t, np.int64), np.array(p, bool), 240, 180
    )


def test_every_way_has_a_drawing_and_a_version_of_its_own() -> None:
    """The recipe in an encoder's identity tells the four ways apart, and the default is the histogram."""
    assert set(EVENT_DRAWINGS) == set(WAYS)
    assert len({render_version(way) for way in WAYS}) == len(WAYS)
    assert render_version("histogram") == render_version() == RENDER_VERSION


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_any_number_of_events_is_drawn_alike_each_time(way: EventRepresentation, count: int) -> None:
    """No event gives white, one and many give colour, in as many views as promised, to the bit."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 10**5, count))
    events = stream(
        [(int(rng.integers(50)), int(rng.integers(40)), int(s), bool(rng.integers(2))) for s in t]
    )
    views = render(events, events=way)
    assert len(views) == (BINS if way == "voxel" else 1)
    assert {view.dtype for view in views} == {np.dtype(np.uint8)}
    assert (np.stack(views) < 255).any() == (count > 0)
    for view, again in zip(views, render(events, events=way), strict=True):
        np.testing.assert_array_equal(view, again)


@pytest.mark.parametrize("way", WAYS)
def test_one_time_for_all_events_is_drawn(way: EventRepresentation) -> None:
    """Where no time passes, nothing is divided by it: growing light is red and fading light blue."""
    view = render(stream([(0, 0, 7, True), (1, 0, 7, False)]), events=way)[0]
    assert view.tolist() == [[RED, BLUE]]


def test_the_event_image_shows_the_balance() -> None:
    """A pixel that grew as often as it faded is white; strength is the root of the share of the strongest."""
    pixels = [(0, 0, 0, True), (0, 0, 1, False), (1, 0, 2, True)] + [(2, 0, 3 + i, False) for i in range(4)]
    view = render(stream(pixels), events="image")[0]
    full = np.percentile([1, 4], 99)
    faint = round(255 * (1 - math.sqrt(1 / full)))
    assert view[0].tolist() == [WHITE, [255, faint, faint], BLUE]


def test_voxel_views_part_the_recording_by_time() -> None:
    """The first view shows what came first, the last one what came last, on one scale."""
    views = render(stream([(0, 0, 0, True), (1, 0, 300, False)]), events="voxel")
    assert views[0][0].tolist() == [RED, WHITE]
    assert views[-1][0].tolist() == [WHITE, BLUE]
    assert all((view == 255).all() for view in views[1:-1])


def test_the_time_surface_fades_with_age() -> None:
    """A pixel's last event of each polarity counts, faded by exp(−age / τ); both polarities mix."""
    tau = round(TAU_US)
    events = [(0, 0, 0, True), (1, 0, tau, True), (2, 0, 2 * tau, True), (2, 0, 2 * tau, False)]
    view = render(stream(events), events="time-surface")[0]
    faint, fainter = (round(255 * (1 - math.exp(-age))) for age in (1, 2))
    assert view[0].tolist() == [[255, fainter, fainter], [255, faint, faint], BLACK]
