"""Facts of pictures: photos, thermal pictures, and videos.

Shape legend: H height, W width, F frames, N pixels; the last axis of a picture is its colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.readers.payload import Clip, Picture, ThermalPicture
from kb_builder.facts.words import colour_phrase, grade, to_lab, to_lightness, with_article

_SIDE = 96  # pixels of the long side when measured: facts must not depend on the resolution
_PLAIN_BORDER = 12.0  # ΔE: the border's median distance from its own median colour, below which it is plain
_STANDS_OUT = 14.0  # ΔE from a plain background; about six times a just noticeable difference (2.3)
_LEAST_OBJECT, _MOST_OBJECT = 0.005, 0.95  # shares of the picture between which a region is called an object

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class _Shape:
    """A region's outline. `elongation` is the ratio of its two principal standard deviations (1 is round)."""

    share: float
    elongation: float
    has_hole: bool


def describe_picture(picture: Picture) -> str:
    """Colours, light, contrast, texture, and the main object's size and outline, if one stands out."""
    return f"A picture of {_content(picture.rgb_HW3)}."


def describe_clip(clip: Clip) -> str:
    """Length, amount of motion, and what the middle frame shows."""
    frames = [to_lightness(_shrink(frame)) for frame in clip.frames_FHW3]
    steps = [float(np.abs(b - a).mean()) for a, b in pairwise(frames)]
    # The sampled frames may lie far apart: the change from frame to frame is what is graded, not a speed.
    motion = grade(
        float(np.mean(steps)) if steps else 0.0,
        [(0.15, "nothing moves"), (1.5, "little motion"), (5.0, "some motion"), (12.0, "much motion")],
        "very much motion or many cuts",
    )
    shown = _content(clip.frames_FHW3[len(frames) // 2])
    return f"A video of {clip.duration_s:.1f} seconds with {motion}, of {shown}."


def describe_thermal(picture: ThermalPicture) -> str:
    """Coldest, mean and warmest value; the warmer part by Otsu's threshold; the middle against the border."""
    full_HW = picture.values_HW
    low, mean, high = float(full_HW.min()), float(full_HW.mean(dtype=np.float64)), float(full_HW.max())
    kelvin = picture.unit == "kelvin"
    if kelvin:
        span = f"{low - 273.15:.0f} to {high - 273.15:.0f} °C, mean {mean - 273.15:.0f} °C"
    else:
        span = f"{low:.4g} to {high:.4g} counts, mean {mean:.4g}"
    values_HW = _shrink_values(picture.values_HW)
    warm_HW = values_HW > otsu_threshold(values_HW)
    if not warm_HW.any():
        return f"A thermal picture of an even temperature, {span}."
    warm_N, cool_N = values_HW[warm_HW], values_HW[~warm_HW]
    step = float(warm_N.mean() - cool_N.mean())
    evenness = grade(float(warm_N.std()) / step, [(0.15, "even"), (0.35, "fairly even")], "uneven")
    part = (
        f"the warmer part, {_outline(_shape(warm_HW))}, {warm_HW.mean():.0%} of the picture, is "
        f"{_warmer(step, picture, high - low)} the rest and {evenness}"
    )
    height, width = values_HW.shape
    middle_HW = values_HW[height // 4 : height - height // 4, width // 4 : width - width // 4]
    inward = float(middle_HW.mean() - _border(values_HW).mean())
    return (
        f"A thermal picture, {span}: {part}; the middle is {_warmer(inward, picture, high - low)} the border."
    )


def _warmer(step: float, picture: ThermalPicture, span: float) -> str:
    """`much warmer than`: graded in kelvin where the unit is known, else in shares of the picture's span."""
    size, direction = abs(step), "warmer" if step > 0 else "cooler"
    if picture.unit == "kelvin":
        word = grade(size, [(1, "about as warm as"), (4, "slightly "), (12, ""), (40, "much ")], "very much ")
        return word if size < 1 else f"{word}{direction} (by {size:.0f} °C) than"
    word = grade(size / span, [(0.03, "about as warm as"), (0.2, "slightly "), (0.5, "")], "much ")
    return word if size < 0.03 * span else f"{word}{direction} than"


def otsu_threshold(values: npt.NDArray[np.float64], bins: int = 256) -> float:
    """The threshold with the largest variance between the two classes that it splits (Otsu, 1979).

    The highest value itself where all values are equal: then nothing lies above it.
    """
    low, high = float(values.min()), float(values.max())
    if not low < high:
        return high
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    weight = counts / counts.sum()
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(weight)[:-1]
    moment = np.cumsum(weight * centers)[:-1]
    total = float((weight * centers).sum())
    # Equation 18: σ²_B(k) = (μ_T ω(k) − μ(k))² / (ω(k) (1 − ω(k))); both classes hold values for every k.
    between = (total * below - moment) ** 2 / np.maximum(below * (1 - below), 1e-300)
    return float(edges[1:-1][between.argmax()])


def _content(rgb_HW3: npt.NDArray[np.uint8]) -> str:
    lab_HW3 = to_lab(_shrink(rgb_HW3))
    light_HW = lab_HW3[..., 0]
    light = grade(
        float(light_HW.mean()),
        [(20, "very dark"), (40, "dark"), (62, "medium light"), (82, "bright")],
        "very bright",
    )
    # RMS contrast (Peli, 1990), here of L*, whose full range is 100.
    contrast = grade(float(light_HW.std()), [(6, "hardly any"), (14, "low"), (25, "medium")], "strong")
    scene = f"the picture is {light} with {contrast} contrast"
    border_N3 = _border(lab_HW3)
    background = np.median(border_N3, axis=0)
    plain = float(np.median(np.linalg.norm(border_N3 - background, axis=1))) < _PLAIN_BORDER
    object_HW = np.linalg.norm(lab_HW3 - background, axis=2) > _STANDS_OUT
    if not plain or not _LEAST_OBJECT < object_HW.mean() < _MOST_OBJECT:
        kind = "a plain surface" if plain and not object_HW.mean() > _LEAST_OBJECT else "a scene"
        colours = colour_phrase(lab_HW3.reshape(-1, 3))
        return f"{kind} in {colours}, {_texture(light_HW, np.ones_like(object_HW))}; {scene}"
    shape = _shape(object_HW)
    size = grade(shape.share, [(0.04, "tiny"), (0.12, "small"), (0.35, "medium-sized")], "large")
    colours = colour_phrase(lab_HW3[object_HW])
    shine = ", with bright highlights" if _has_highlights(lab_HW3[object_HW]) else ""
    looks = f"{size}, {_outline(shape)} object in {colours}"
    texture = _texture(light_HW, object_HW)
    ground = colour_phrase(border_N3, least=0.3)
    return f"{with_article(looks)}, {texture}{shine}, on a plain {ground} background; {scene}"


def _shrink(rgb_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgb_HW3).resize(_size(rgb_HW3), Image.Resampling.BOX))


def _shrink_values(values_HW: npt.NDArray[np.float32]) -> Doubles:
    small = Image.fromarray(values_HW).resize(_size(values_HW), Image.Resampling.BOX)
    return np.asarray(small).astype(np.float64)


def _size(picture: npt.NDArray[Any]) -> tuple[int, int]:
    """Width and height at which a picture is measured."""
    height, width = picture.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _border(picture: npt.NDArray[T]) -> npt.NDArray[T]:
    """The pixels of a frame one sixteenth of the picture wide, as a list."""
    height, width = picture.shape[:2]
    rows, columns = max(1, height // 16), max(1, width // 16)
    frame = np.ones((height, width), dtype=bool)
    frame[rows : height - rows, columns : width - columns] = False
    return picture[frame]


def _texture(light_HW: Doubles, mask_HW: Mask) -> str:
    """Grade the mean change of L* between neighbours that both lie in the mask, its outline left out."""
    changes = [np.abs(np.diff(light_HW, axis=axis))[_pairs(mask_HW, axis)] for axis in (0, 1)]
    values = np.concatenate(changes)
    return grade(
        float(values.mean()) if values.size else 0.0,
        [(0.8, "smooth"), (2.2, "slightly textured"), (5.0, "textured")],
        "strongly textured",
    )


def _pairs(mask_HW: Mask, axis: int) -> Mask:
    first, second = (mask_HW[:-1], mask_HW[1:]) if axis == 0 else (mask_HW[:, :-1], mask_HW[:, 1:])
    both: Mask = first & second
    return both


def _has_highlights(lab_N3: Doubles) -> bool:
    """Whether a few object pixels are near white while most are clearly darker, as on a shiny surface."""
    light, chroma = lab_N3[:, 0], np.hypot(lab_N3[:, 1], lab_N3[:, 2])
    share = float(((light > 88) & (chroma < 15)).mean())
    return 0.002 < share < 0.2 and float(np.median(light)) < 70


def _shape(mask_HW: Mask) -> _Shape:
    rows, columns = np.nonzero(mask_HW)
    spread = np.cov(np.stack([rows, columns]).astype(np.float64), bias=True)
    small, large = np.linalg.eigvalsh(spread)
    # A twelfth of a pixel squared is the variance of one pixel: it keeps lines one pixel wide finite.
    elongation = float(np.sqrt((large + 1 / 12) / (max(small, 0.0) + 1 / 12)))
    hole = float((~mask_HW & ~_outside(mask_HW)).sum())
    return _Shape(float(mask_HW.mean()), elongation, hole > 0.02 * len(rows))


def _outside(mask_HW: Mask) -> Mask:
    """The pixels outside the mask that are 4-connected to the picture's edge.

    They are found run by run, a whole row or column at a time: of a run, all pixels are reached or none.
    """
    free = np.pad(~mask_HW, 1, constant_values=True)  # a run may go on behind a row's end: both are outside
    along = [np.cumsum(~free).reshape(free.shape), np.cumsum(~free.T).reshape(free.T.shape).T]
    reached = np.zeros_like(free)
    reached[0] = True
    before = 0
    while before < (count := int(np.count_nonzero(reached))):
        before = count
        for run_HW in along:
            any_reached = np.zeros(int(run_HW[-1, -1]) + 1, np.bool_)
            any_reached[run_HW[reached]] = True
            reached = any_reached[run_HW] & free
    return reached[1:-1, 1:-1]


def _outline(shape: _Shape) -> str:
    outline = grade(shape.elongation, [(1.25, "compact"), (2.0, "somewhat long")], "long")
    return f"{outline}, ring-like" if shape.has_hole else outline
