"""Renderings: their form, and what each of them shows."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import (
    Bytes,
    Clip,
    Events,
    Payload,
    Picture,
    Points,
    Text,
    ThermalPicture,
    Waveform,
)
from data.render import RENDER_VERSION, RENDERERS, contact_sheet, render
from data.render.canvas import LEAST_SPAN, SIZE, COLOUR_SCALE_256x3, heat_limits, shrink


def payloads() -> dict[str, Payload]:
    rng = np.random.default_rng(0)
    n = 3000
    return {
        "picture": Picture(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)),
        "sound": Waveform(rng.normal(0, 0.1, 8000).astype(np.float32), 16000),
        "points": Points(rng.normal(size=(2048, 3)).astype(np.float32)),
        "heat": ThermalPicture(rng.normal(300, 5, (120, 160)).astype(np.float32), "kelvin"),
        "clip": Clip(rng.integers(0, 256, (12, 240, 320, 3)).astype(np.uint8), np.arange(12) / 6, 2.0),
        "events": Events(
            rng.integers(0, 240, n).astype(np.uint16),
            rng.integers(0, 180, n).astype(np.uint16),
            np.sort(rng.integers(0, 10**5, n)),
            rng.random(n) < 0.5,
            240,
            180,
        ),
    }


VIEWS = {"picture": 1, "sound": 1, "points": 4, "heat": 1, "clip": 4, "events": 1}


@pytest.mark.parametrize("name", VIEWS)
def test_every_payload_is_drawn_as_colour_bytes_of_the_right_size(name: str) -> None:
    """Views are uint8[H, W, 3], at most SIZE on the short side, as many as promised, and repeatable."""
    views = render(payloads()[name])
    assert len(views) == VIEWS[name]
    for view, again in zip(views, render(payloads()[name]), strict=True):
        assert view.dtype == np.uint8
        assert view.ndim == 3
        assert view.shape[2] == 3
        assert 100 <= min(view.shape[:2]) <= SIZE
        assert view.std() > 5  # something is drawn
        np.testing.assert_array_equal(view, again)


def test_a_text_has_no_rendering() -> None:
    """A text is refused with what to use instead, and everything else has a renderer."""
    with pytest.raises(ValueError, match="text encoder"):
        render(Text("a wooden sphere"))
    assert {type(payload) for payload in payloads().values()} == set(RENDERERS)


def test_the_version_names_what_is_drawn() -> None:
    """Which event representation was drawn is recorded: it changes results."""
    assert "polarity-histogram" in RENDER_VERSION


def test_shrinking_keeps_shape_and_brightness() -> None:
    """A large picture keeps its aspect and mean; a small one passes untouched; a sliver keeps a pixel."""
    rows, columns = np.indices((600, 800))
    picture = np.stack([rows // 3, columns // 4, (rows + columns) // 6], axis=2).astype(np.uint8)
    small = shrink(picture)
    assert small.shape == (224, 299, 3)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), picture.mean(axis=(0, 1)), atol=1)
    assert shrink(picture[:100, :50]) is not None
    np.testing.assert_array_equal(shrink(picture[:100, :50]), picture[:100, :50])
    assert shrink(np.zeros((1, 5000, 3), np.uint8)).shape == (1, 5000, 3)


def test_the_colour_scale_grows_lighter_evenly() -> None:
    """Luma (ITU-R BT.601) rises along the scale, so it reads the same when printed grey."""
    luma = COLOUR_SCALE_256x3 @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > 0).all()
    assert luma[0] < 5
    assert luma[-1] > 235


def test_contact_sheets_hold_every_view_whole() -> None:
    """Four views stand two by two in reading order, three leave a white cell, smaller ones are centred."""
    views = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    sheet = contact_sheet(views)
    assert sheet.shape == (24, 44, 3)
    assert [int(sheet[r, c, 0]) for r, c in ((5, 10), (5, 34), (19, 10), (19, 34))] == [10, 20, 30, 40]
    assert (contact_sheet(views[:3])[14:, 24:] == 255).all()
    mixed = contact_sheet([views[0], np.zeros((4, 4, 3), np.uint8)])
    assert (mixed[3:7, 32:36] == 0).all()
    assert mixed[:3, 24:].min() == 255
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_heat_is_drawn_between_its_own_limits() -> None:
    """Black and white are the outermost thousandths, so one dead pixel does not flatten the scene."""
    values = np.linspace(290, 310, 10_000, dtype=np.float32).reshape(100, 100)
    values[50, 50] = 5000
    picture = ThermalPicture(values, "kelvin")
    assert heat_limits(picture) == pytest.approx((290.02, 309.98), abs=0.01)
    view = render(picture)[0]
    assert (view[0, 0, 0], view[-1, -1, 0], view[50, 50, 0]) == (0, 255, 255)
    assert (view == view[:, :, :1]).all()
    assert int(view[49, 99, 0]) == pytest.approx(127, abs=1)


def test_an_even_scene_is_not_drawn_as_its_noise() -> None:
    """Half a kelvin of noise stays within a tenth of the grey scale; a flat picture is mid-grey."""
    rng = np.random.default_rng(0)
    noisy = ThermalPicture(rng.uniform(299.75, 300.25, (50, 50)).astype(np.float32), "kelvin")
    low, high = heat_limits(noisy)
    assert high - low == pytest.approx(LEAST_SPAN["kelvin"])
    assert np.ptp(render(noisy)[0].astype(int)) <= 26
    flat = ThermalPicture(np.full((8, 8), 77, np.float32), "counts")
    assert abs(int(render(flat)[0].mean()) - 128) <= 1


def test_the_frames_of_a_clip_are_those_of_its_quarters() -> None:
    """Of twelve frames the second, fifth, eighth and eleventh are drawn; of two, both."""
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    assert [int(v[0, 0, 0]) for v in render(Clip(frames, np.arange(12.0), 12.0))] == [1, 4, 7, 10]
    assert [int(v[0, 0, 0]) for v in render(Clip(frames[:2], np.arange(2.0), 2.0))] == [0, 1]


def events_at(pixels: list[tuple[int, int, bool]], *, width: int = 240, height: int = 180) -> Events:
    x, y, polarity = zip(*pixels, strict=True)
    return Events(
        np.array(x, np.uint16), np.array(y, np.uint16), np.arange(len(x)), np.array(polarity), width, height
    )


def test_event_colours_and_frame() -> None:
    """Growing light is red, fading light blue, both dark, nothing white, in the rectangle of the events."""
    view = render(events_at([(10, 20, True), (12, 20, False), (14, 21, True), (14, 21, False)]))[0]
    assert view.shape == (2, 5, 3)
    assert view[0].tolist() == [[255, 0, 0], [255] * 3, [0, 0, 255], [255] * 3, [255] * 3]
    assert view[1, 4].tolist() == [0, 0, 0]


def test_event_strength_against_counting_in_a_loop() -> None:
    """The histogram agrees with one counted event by event; strength is the root of the share."""
    rng = np.random.default_rng(0)
    pixels = [
        (int(x), int(y), bool(p)) for x, y, p in zip(*rng.integers(0, (9, 7, 2), (600, 3)).T, strict=True)
    ]
    counts = np.zeros((7, 9, 2))
    for x, y, polarity in pixels:
        counts[y, x, int(polarity)] += 1
    strength = np.sqrt(counts / np.percentile(counts[counts > 0], 99)).clip(0, 1)
    view: Bytes = render(events_at(pixels))[0]
    np.testing.assert_allclose(view[:, :, 0], 255 * (1 - strength[:, :, 0]), atol=0.51)
    np.testing.assert_allclose(view[:, :, 2], 255 * (1 - strength[:, :, 1]), atol=0.51)


def test_large_sensors_are_binned_without_losing_an_event() -> None:
    """On 640 × 480, blocks of two by two pixels share a bin: four single events make one strong pixel."""
    corners = [(0, 0, True), (639, 479, True)]
    block = [(100 + dx, 200 + dy, True) for dx in (0, 1) for dy in (0, 1)]
    view = render(events_at(corners + block, width=640, height=480))[0]
    assert view.shape[:2] == (224, 299)
    assert view[round(100 * 224 / 240), round(50 * 299 / 320), 1] < 150
