"""kb_builder.facts.words: CIELAB against published values, and colour words."""

from __future__ import annotations

import numpy as np
import pytest

from kb_builder.facts.words import COLOUR_NAMES, COLOURS, colour_phrase, colour_shares, to_lab, to_lightness


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.241, 80.092, 67.203)),
        ((0, 255, 0), (87.735, -86.183, 83.179)),
        ((0, 0, 255), (32.297, 79.188, -107.860)),
        ((119, 119, 119), (50.034, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    """The corners of sRGB have their published D65 values; lightness alone agrees."""
    pixel = np.array(rgb, dtype=np.uint8)
    np.testing.assert_allclose(to_lab(pixel), lab, atol=0.02)
    np.testing.assert_allclose(to_lightness(pixel), lab[0], atol=0.02)


def test_every_prototype_has_its_own_name() -> None:
    """A pixel of a prototype's colour is called by its word."""
    for name in COLOUR_NAMES:
        assert colour_phrase(to_lab(np.array([COLOURS[name]], dtype=np.uint8))) == name


def test_shares_and_phrases() -> None:
    """Shares fall and sum to one; a second colour is named where it covers enough."""
    red, blue = (205, 35, 40), (45, 90, 205)
    lab = to_lab(np.array([red] * 3 + [blue], dtype=np.uint8))
    assert colour_shares(lab) == [("red", 0.75), ("blue", 0.25)]
    assert colour_phrase(lab) == "red and blue"
    assert colour_phrase(lab, least=0.3) == "red"
