"""The report's maps: evenly scaled, every dot drawn, names readable."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from pipeline.html.labels import HEIGHT, LETTER, place_labels
from pipeline.report.space import first_map, fitted, labels
from trainer.evaluate.maps.space import SpaceMap


def _picture(n: int, categories: int, kinds: tuple[str, ...]) -> SpaceMap:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % categories
    return SpaceMap(
        xy_N2=rng.normal(size=(n + categories, 2)) * 30,
        kinds=tuple(kinds[i % len(kinds)] for i in range(n)) + ("center",) * categories,
        category_N=np.concatenate([labels, np.arange(categories)]),
        ids=tuple(str(i) for i in range(n + categories)),
        categories=tuple(f"category {i}" for i in range(categories)),
    )


def test_the_map_is_scaled_alike_in_both_directions() -> None:
    """Points fill the panel without stretching: ratios of distances stay, and y points down."""
    xy_N2 = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    (a, b, c), height = fitted(xy_N2)
    assert 165 < height < 330, "twice as wide as high, with a margin"
    assert np.linalg.norm(b - a) == pytest.approx(2 * np.linalg.norm(c - a))
    assert c[1] < a[1]
    assert np.isfinite(fitted(np.zeros((3, 2)))[0]).all()


def test_labels_stay_inside_and_apart() -> None:
    """Ten labels among scattered centers neither leave the panel nor cover one another."""
    picture = _picture(60, 10, ("image", "audio"))
    placed = labels(picture, *fitted(picture.xy_N2))
    assert len(placed) == 10
    boxes = [(label.x, label.y, LETTER * len(label.words)) for label in placed]
    assert all(wide / 2 <= x <= 330 - wide / 2 for x, _, wide in boxes)
    for (x, y, wide), (other_x, other_y, other) in combinations(boxes, 2):
        assert abs(x - other_x) >= (wide + other) / 2 or abs(y - other_y) >= HEIGHT - 1e-9


def test_names_of_one_place_are_led_outwards() -> None:
    """Eight categories on one spot: names do not overlap, and a line leads to those that stand away."""
    spots = {key: (100.0 + key, 100.0) for key in range(8)}
    words = {key: f"category {key}" for key in spots}
    placed = place_labels(spots, words, size=(330.0, 330.0), dots_N2=np.zeros((0, 2)))
    for one, other in combinations(placed, 2):
        assert abs(one.x - other.x) >= LETTER * len("category 0") or abs(one.y - other.y) >= HEIGHT - 1e-9
    leaders = [label for label in placed if label.leader]
    assert leaders
    for label in leaders:
        start, end = label.leader or ((0, 0), (0, 0))
        assert np.hypot(start[0] - spots[label.key][0], start[1] - 100) == pytest.approx(5)
        assert abs(end[0] - label.x) <= LETTER * len(label.words) / 2 + 1e-9
        assert abs(end[1] - label.y) <= HEIGHT / 2 + 1e-9


def test_a_crowded_map_labels_some_and_draws_every_dot(parsed: Any) -> None:
    """Sixty categories get forty labels; every sample is one dot of either panel."""
    picture = _picture(300, 60, ("image", "audio", "event"))
    assert len(labels(picture, *fitted(picture.xy_N2))) == 40
    markup = first_map({"after": picture})
    dots = [attributes["d"] for tag, attributes in parsed(markup).tags if tag == "path"]
    assert sum((path or "").count("h0") for path in dots) == 2 * 300
