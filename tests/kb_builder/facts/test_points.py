"""kb_builder.facts.points: shapes that are known, in words."""

from __future__ import annotations

import numpy as np
import pytest

from data.readers.payload import Points
from kb_builder.facts.points import describe_points

N = 2048


def said(xyz: np.ndarray, rgb: np.ndarray | None = None) -> str:
    return describe_points(Points(xyz.astype(np.float32), rgb))


def turned(xyz: np.ndarray) -> np.ndarray:
    """A fixed rotation, and a shift: words must depend on neither."""
    rotation, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))
    return xyz @ rotation + [3.0, -1.0, 10.0]


def ball() -> np.ndarray:
    xyz = np.random.default_rng(0).normal(size=(N, 3))
    return xyz / np.linalg.norm(xyz, axis=1, keepdims=True)


def cube() -> np.ndarray:
    draw = np.random.default_rng(0)
    xyz = draw.uniform(-1, 1, size=(N, 3))
    xyz[np.arange(N), draw.integers(3, size=N)] = draw.choice([-1.0, 1.0], size=N)
    return xyz


def torus() -> np.ndarray:
    around, tube = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(2, N))
    reach = 1 + 0.35 * np.cos(tube)
    return np.stack([reach * np.cos(around), reach * np.sin(around), 0.35 * np.sin(tube)], axis=1)


def cone() -> np.ndarray:
    draw = np.random.default_rng(0)
    height = 1 - np.sqrt(draw.uniform(size=N))
    around = draw.uniform(0, 2 * np.pi, size=N)
    return np.stack([(1 - height) * np.cos(around), (1 - height) * np.sin(around), 2.5 * height], axis=1)


@pytest.mark.parametrize(
    ("xyz", "words", "not_words"),
    [
        (ball(), ("about as wide as it is deep and tall", "ball-like"), ("open", "tapering")),
        (cube(), ("about as wide", "blunt corners"), ("open", "tapering", "ball-like")),
        (torus(), ("flat", "open along its middle axis"), ("tapering", "ball-like")),
        (cone(), ("tapering to one end",), ("open", "ball-like")),
        (cube() * [1, 1, 0.001], ("very flat, like a sheet",), ("ball-like",)),
        (cube() * [1, 0.02, 0.02], ("very long and thin",), ("ball-like",)),
    ],
    ids=["ball", "cube", "torus", "cone", "sheet", "rod"],
)
def test_known_shapes(xyz: np.ndarray, words: tuple[str, ...], not_words: tuple[str, ...]) -> None:
    """Six shapes have their words, turned and shifted too."""
    for cloud in (xyz, turned(xyz)):
        for word in words:
            assert word in said(cloud)
        for word in not_words:
            assert word not in said(cloud)


def test_sides_are_told_along_the_axes_of_the_file() -> None:
    """Extents are sorted and relative to the longest."""
    assert "sides 1.0 to 0.5 to 0.2" in said(cube() * [0.2, 1, 0.5])


def test_size_does_not_matter() -> None:
    """Millimetres and kilometres give the same words."""
    assert said(torus()) == said(torus() * 1e5) == said(torus() * 1e-5)


def test_colours_are_named() -> None:
    """A cloud's own colours are told."""
    red = np.tile(np.array([205, 35, 40], dtype=np.uint8), (N, 1))
    assert "coloured red" in said(ball(), red)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_degenerate_clouds(count: int) -> None:
    """Points at one place and on one line are described without a warning."""
    assert said(np.ones((count, 3))) == f"A point cloud of {count} points, all at one place."
    assert "very long and thin" in said(np.outer(np.arange(count), [1.0, 2.0, 3.0]))
