"""Place labels on a map: each near its spot, without covering other labels and dots where there is room.

Greedy: from the top down, every label takes the best of several places around its spot. Where spots are
crowded, labels move outwards and get a leader line. All lengths are in the map's own units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# The size of a letter: sans-serif of 8.5 units, wide enough for DejaVu.
LETTER, HEIGHT = 4.8, 9.0
RING = 5.0  # the radius of a spot's ring

_DISTANCES = (7.0, 14.0, 24.0, 36.0, 50.0, 66.0)  # from the spot to the label's nearest edge
_ANGLES = 16

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Label:
    """A label: the key of its spot, its words, its middle, and its leader line, if any."""

    key: int
    words: str
    x: float
    y: float
    leader: tuple[Point, Point] | None


def place_labels(
    spots: Mapping[int, Point],
    words: Mapping[int, str],
    *,
    size: Point,
    dots_N2: npt.NDArray[np.float64],
) -> list[Label]:
    """Place the labels `words[key]` around `spots[key]` on a map of `size` (width, height).

    The cost of a place: covering another label weighs most, then a ring, then dots, then distance. Labels
    stay inside the map. Spots without words are only rings to keep clear.
    """
    rings_M2 = np.array(list(spots.values())).reshape(-1, 2)
    taken: list[tuple[float, float, float]] = []
    labels: list[Label] = []
    for key in sorted(words, key=lambda key: (spots[key][1], key)):
        half = LETTER * len(words[key]) / 2
        places = _places(spots[key], half, size)
        costs = [
            20 * sum(_overlap(place, half, other) for other in taken)
            + 40 * _inside(rings_M2, place, half + RING, HEIGHT / 2 + RING - 1.5)
            + 5 * _inside(dots_N2, place, half, HEIGHT / 2)
            + math.dist(_nearest(place, half, spots[key]), spots[key])
            for place in places
        ]
        x, y = places[costs.index(min(costs))]
        taken.append((x, y, half))
        labels.append(Label(key, words[key], x, y, _leader((x, y), half, spots[key])))
    return labels


def _places(spot: Point, half: float, size: Point) -> list[Point]:
    """Candidate places of a label's middle: rings of growing distance, above first, inside the map."""
    width, height = size
    places = []
    for distance in _DISTANCES:
        for turn in range(_ANGLES):
            angle = 2 * math.pi * turn / _ANGLES - math.pi / 2
            x = spot[0] + math.cos(angle) * (distance + half)
            y = spot[1] + math.sin(angle) * (distance + HEIGHT / 2)
            x = min(max(x, half + 2), max(width - half - 2, half + 2))
            places.append((x, min(max(y, HEIGHT / 2 + 1), height - HEIGHT / 2 - 1)))
    return places


def _overlap(place: Point, half: float, other: tuple[float, float, float]) -> float:
    """The area that two labels share, given by their middles and half their widths."""
    wide = half + other[2] - abs(place[0] - other[0])
    high = HEIGHT - abs(place[1] - other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _inside(points_N2: npt.NDArray[np.float64], place: Point, half_width: float, half_height: float) -> int:
    """The number of points in a box."""
    away_N2 = np.abs(points_N2 - np.array(place))
    return int(np.count_nonzero((away_N2[:, 0] < half_width) & (away_N2[:, 1] < half_height)))


def _nearest(place: Point, half: float, spot: Point) -> Point:
    """The point of a label's box that is nearest to its spot."""
    x = min(max(spot[0], place[0] - half), place[0] + half)
    y = min(max(spot[1], place[1] - HEIGHT / 2), place[1] + HEIGHT / 2)
    return x, y


def _leader(place: Point, half: float, spot: Point) -> tuple[Point, Point] | None:
    """The line from a spot's ring to its label, if the label is far from it."""
    end = _nearest(place, half, spot)
    length = math.dist(end, spot)
    if length < 12:
        return None
    step = RING / length
    return (spot[0] + step * (end[0] - spot[0]), spot[1] + step * (end[1] - spot[1])), end
