"""What the renderings share: their size, how pictures shrink, a colour scale, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data.readers.payload import Bytes, Clip, Floats, ThermalPicture

SIZE = 224  # pixels: the input side of most vision encoders
GAP = 4  # pixels between the views of a contact sheet

# A dark-to-light scale whose lightness grows evenly, so that it reads the same in grey (the anchors follow
# matplotlib's "inferno", CC0, at eighths).
_ANCHORS = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)
VIEWS = 4
TAIL_PERCENT = 0.1  # of the pixels at each end that may saturate: dead pixels and glints
LEAST_SPAN = {"kelvin": 5.0, "counts": 1.0}  # else an even scene would be drawn as its sensor's noise


def _scale() -> Bytes:
    at_9, to_256 = np.linspace(0, 255, len(_ANCHORS)), np.arange(256)
    channels = [np.interp(to_256, at_9, channel) for channel in zip(*_ANCHORS, strict=True)]
    scale: Bytes = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return scale


COLOUR_SCALE_256x3 = _scale()


def to_byte(values: Floats, *, low: float, high: float) -> Bytes:
    """Map [low, high] to 0…255 evenly; values outside take the nearest end."""
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low))
    grey: Bytes = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey


def shrink(rgb_HW3: Bytes, size: int = SIZE) -> Bytes:
    """Scale a picture down so that its short side is `size`; smaller pictures pass unchanged."""
    height, width = rgb_HW3.shape[:2]
    scale = size / min(height, width)
    if scale >= 1:
        return rgb_HW3
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    # First a box average by whole factors, then a good filter over the small rest: 4 × faster on photos.
    return np.array(Image.fromarray(rgb_HW3).resize(sides, Image.Resampling.BICUBIC, reducing_gap=2.0))


def stretch(grey_HW: Bytes, *, width: int, height: int) -> Bytes:
    """Resample a grey picture to a size of any other shape (triangle filter, averaging where it shrinks)."""
    return np.array(Image.fromarray(grey_HW).resize((width, height), Image.Resampling.BILINEAR))


def contact_sheet(views: Sequence[Bytes]) -> Bytes:
    """All views on one white sheet, in reading order, in as square a grid as holds them.

    Smaller views are centred in cells of the size of the largest. Raises ValueError without views.
    """
    if not views:
        raise ValueError("a contact sheet needs at least one view")
    columns = math.ceil(math.sqrt(len(views)))
    rows = math.ceil(len(views) / columns)
    height, width = max(v.shape[0] for v in views), max(v.shape[1] for v in views)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, view in enumerate(views):
        top = i // columns * (height + GAP) + (height - view.shape[0]) // 2
        left = i % columns * (width + GAP) + (width - view.shape[1]) // 2
        sheet[top : top + view.shape[0], left : left + view.shape[1]] = view
    return sheet


def quarter_frames(clip: Clip, *, size: int = SIZE) -> list[Bytes]:
    """Four uint8[H, W, 3] frames, evenly spaced; a shorter clip gives as many as it has.

    Larger frames are reduced to `size` pixels on their short side.
    """
    count = len(clip.frames_FHW3)
    picks = sorted({(2 * i + 1) * count // (2 * VIEWS) for i in range(VIEWS)})
    return [shrink(clip.frames_FHW3[pick], size) for pick in picks]


def heat_picture(picture: ThermalPicture, *, size: int = SIZE) -> Bytes:
    """Warm is bright, uint8[H, W, 3] with equal channels, scaled between `heat_limits`.

    A larger picture is reduced to `size` pixels on its short side.
    """
    low, high = heat_limits(picture)
    grey_HW = to_byte(picture.values_HW, low=low, high=high)
    return np.repeat(shrink(grey_HW, size)[:, :, None], 3, axis=2)


def heat_limits(picture: ThermalPicture) -> tuple[float, float]:
    """The values drawn black and white, in the picture's unit.

    The percentiles `TAIL_PERCENT` and 100 − `TAIL_PERCENT`, widened around their middle to `LEAST_SPAN`.
    """
    low, high = (float(v) for v in np.percentile(picture.values_HW, (TAIL_PERCENT, 100 - TAIL_PERCENT)))
    lacking = max(0.0, LEAST_SPAN[picture.unit] - (high - low))
    return low - lacking / 2, high + lacking / 2
