"""Words for measurements: grades of a number, and colour names by the nearest prototype in CIELAB.

Shape legend: N pixels; the last axis is red, green, blue or L*, a*, b*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# sRGB to XYZ with the D65 white point (IEC 61966-2-1), rows scaled so that white is (1, 1, 1).
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = (
    np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    / _WHITE[:, None]
)

# One prototype per name, chosen so that everyday things get their usual colour word.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (15, 15, 15),
    "dark grey": (75, 75, 75),
    "grey": (135, 135, 135),
    "light grey": (195, 195, 195),
    "white": (250, 250, 250),
    "red": (205, 35, 40),
    "dark red": (110, 20, 25),
    "orange": (240, 135, 40),
    "yellow": (245, 220, 60),
    "green": (60, 155, 65),
    "light green": (160, 215, 130),
    "dark green": (25, 75, 35),
    "turquoise": (60, 185, 185),
    "blue": (45, 90, 205),
    "light blue": (150, 195, 235),
    "dark blue": (20, 30, 95),
    "purple": (125, 55, 150),
    "pink": (240, 150, 185),
    "brown": (125, 80, 45),
    "dark brown": (70, 42, 25),
    "light brown": (190, 145, 100),
    "beige": (230, 210, 175),
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)


# The linear light of each of the 256 values of a channel (IEC 61966-2-1).
_VALUE = np.arange(256) / 255
_LINEAR = np.where(_VALUE <= 0.04045, _VALUE / 12.92, ((_VALUE + 0.055) / 1.055) ** 2.4)


def to_lab(rgb: npt.NDArray[np.uint8]) -> Doubles:
    """CIE 1976 L*a*b* of 8-bit sRGB, any leading shape. L* is 0 (black) to 100 (white)."""
    root = _compressed(_LINEAR[rgb] @ _TO_XYZ.T)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def to_lightness(rgb: npt.NDArray[np.uint8]) -> Doubles:
    """L* alone."""
    return 116 * _compressed(_LINEAR[rgb] @ _TO_XYZ[1]) - 16


def _compressed(xyz: Doubles) -> Doubles:
    """The cube root, with a straight line near black (CIE 15:2004, equations 8.3 to 8.11)."""
    return np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)


_PROTOTYPES = to_lab(np.array(list(COLOURS.values()), dtype=np.uint8))


def colour_shares(lab_N3: Doubles) -> list[tuple[str, float]]:
    """Colour names by falling share of the pixels (shares sum to 1); each pixel has its nearest prototype."""
    # |x - p|² = |x|² - 2 x·p + |p|², and |x|² is the same for every prototype.
    distance_NC = (_PROTOTYPES**2).sum(axis=1) - 2 * lab_N3 @ _PROTOTYPES.T
    counts = np.bincount(distance_NC.argmin(axis=1), minlength=len(COLOUR_NAMES))
    order = np.argsort(-counts, kind="stable")
    return [(COLOUR_NAMES[i], float(counts[i] / counts.sum())) for i in order if counts[i]]


def colour_phrase(lab_N3: Doubles, *, least: float = 0.2) -> str:
    """The first two colours that cover at least that share of the pixels each: `brown`, `brown and black`."""
    shares = colour_shares(lab_N3)
    second = [name for name, share in shares[1:2] if share >= least]
    return " and ".join([shares[0][0], *second])


def grade(value: float, steps: Sequence[tuple[float, str]], last: str) -> str:
    """The word of the first step whose upper limit lies above the value; `last` above all limits."""
    return next((word for limit, word in steps if value < limit), last)


def with_article(phrase: str) -> str:
    """`an old photo`, `a photo`."""
    return f"{'an' if phrase[:1] in set('aeiou') else 'a'} {phrase}"
