"""kb_builder.facts.pictures: pictures that are known, in words."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import Clip, Picture, ThermalPicture
from kb_builder.facts.pictures import (
    _outside,
    describe_clip,
    describe_picture,
    describe_thermal,
    otsu_threshold,
)


def disc(
    colour: tuple[int, int, int], *, radius: float = 20.0, hole: float = 0.0, ground: int = 250
) -> np.ndarray:
    y, x = np.mgrid[:96, :96] - 48.0
    rgb = np.full((96, 96, 3), ground, dtype=np.uint8)
    distance = np.hypot(x, y)
    rgb[(distance < radius) & (distance >= hole)] = colour
    return rgb


def said(rgb: np.ndarray) -> str:
    return describe_picture(Picture(rgb))


def test_an_object_on_a_plain_ground() -> None:
    """Size, outline, colour, texture and ground of a red disc are told."""
    text = said(disc((205, 35, 40)))
    assert "a medium-sized, compact object in red, smooth, on a plain white background" in text
    assert "very bright" in text


@pytest.mark.parametrize(
    ("radius", "word"), [(8.0, "tiny"), (15.0, "small"), (22.0, "medium-sized"), (40.0, "large")]
)
def test_sizes(radius: float, word: str) -> None:
    """An object's size is its share of the picture."""
    assert f"a {word}, compact object" in said(disc((20, 30, 95), radius=radius))


def test_a_ring_and_a_bar() -> None:
    """A hole makes a ring; a bar is long."""
    assert "compact, ring-like object" in said(disc((15, 15, 15), hole=10.0))
    bar = disc((0, 0, 0), radius=0.0)
    bar[45:51, 10:86] = (15, 15, 15)
    assert ", long object in black" in said(bar)


def test_resolution_does_not_matter() -> None:
    """The same picture four times as large is described alike."""
    rgb = disc((125, 80, 45))
    assert said(rgb) == said(np.kron(rgb, np.ones((4, 4, 1), dtype=np.uint8)))


def test_scenes_and_surfaces() -> None:
    """Noise is a strongly textured scene; one colour is a smooth plain surface."""
    noise = np.random.default_rng(0).integers(0, 256, size=(96, 96, 3), dtype=np.uint8)
    assert "a scene in" in said(noise)
    assert "strongly textured" in said(noise)
    assert "a plain surface in white, smooth" in said(disc((0, 0, 0), radius=0.0))


def test_highlights() -> None:
    """A small white spot on a dark object is a highlight."""
    rgb = disc((75, 75, 75), radius=30.0, ground=200)
    rgb[40:44, 40:44] = 255
    assert "with bright highlights" in said(rgb)
    assert "with bright highlights" not in said(disc((75, 75, 75), radius=30.0, ground=200))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2), (2, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    """Pictures of one pixel or one row are described without a warning."""
    rgb = np.random.default_rng(0).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    assert said(rgb).startswith("A picture of a")


def test_motion_of_clips() -> None:
    """A still clip, a moving one and a single frame are told apart; the middle frame is what is shown."""
    frames = np.stack([np.roll(disc((205, 35, 40)), 6 * n, axis=1) for n in range(-2, 3)])
    times = np.arange(5) / 5
    moving = describe_clip(Clip(frames, times, 1.0))
    assert "A video of 1.0 seconds with some motion, of a medium-sized, compact object in red" in moving
    still = describe_clip(Clip(np.stack([frames[2]] * 5), times, 1.0))
    assert "nothing moves" in still
    assert "nothing moves" in describe_clip(Clip(frames[:1], times[:1], 0.2))


def test_heat_in_kelvin() -> None:
    """A warm disc on a cool ground: degrees Celsius, difference, share, evenness, middle against border."""
    y, x = np.mgrid[:96, :96] - 48.0
    kelvin = np.where(np.hypot(x, y) < 27, 313.15, 293.15).astype(np.float32)
    text = describe_thermal(ThermalPicture(kelvin, "kelvin"))
    assert "20 to 40 °C, mean 25 °C" in text
    assert (
        "the warmer part, compact, 25% of the picture, is much warmer (by 20 °C) than the rest and even"
        in text
    )
    assert "the middle is much warmer" in text
    cool = describe_thermal(ThermalPicture(606.3 - kelvin, "kelvin"))
    assert "75% of the picture" in cool
    assert "the middle is much cooler" in cool


def test_heat_in_counts_and_evenness() -> None:
    """Counts are told as counts, without degrees; one temperature is even."""
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))
    text = describe_thermal(ThermalPicture(ramp, "counts"))
    assert "0 to 63 counts, mean 31.5" in text
    assert "°C" not in text
    assert "50% of the picture" in text
    assert "even temperature, 27 to 27 °C" in describe_thermal(
        ThermalPicture(np.full((4, 4), 300.0, dtype=np.float32), "kelvin")
    )
    describe_thermal(ThermalPicture(np.array([[1.0, 2.0]], dtype=np.float32), "counts"))


def test_otsu_against_brute_force() -> None:
    """The threshold parts values as the best of all cuts does, by variance between the parts."""
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(10, 2, 700), draw.normal(30, 3, 300)])

    def between(cut: float) -> float:
        low, high = values[values <= cut], values[values > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(cut) for cut in np.sort(values)[:-1])
    assert between(otsu_threshold(values)) == pytest.approx(best, rel=0.01)
    assert otsu_threshold(np.array([5.0, 5.0])) == 5.0


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 1.0])
def test_outside_is_what_a_flood_from_the_edge_reaches(share: float) -> None:
    """Around corners, through winding ways, and not between two pixels that touch at a corner."""
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 9), (7, 1), (40, 30)):
        mask = rng.random((height, width)) < share
        todo, flooded = [(-1, -1)], np.zeros((height + 2, width + 2), np.bool_)
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < height and 0 <= x < width
            if not (-1 <= y <= height and -1 <= x <= width) or flooded[y, x] or (inside and mask[y, x]):
                continue
            flooded[y, x] = True
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        np.testing.assert_array_equal(_outside(mask), flooded[:height, :width])
